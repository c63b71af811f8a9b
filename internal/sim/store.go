package sim

import (
	"slices"
	"strconv"
	"strings"
	"time"

	machine "github.com/everynode/everynode/internal/decide/daemonset"
	"github.com/everynode/everynode/internal/decide/placement"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// store is what the API keeps. Objects in it are immutable: a change puts another one in its place.
type store struct {
	w       *world
	version int64
	uids    int

	ds     *appsv1.DaemonSet
	nodes  map[string]*corev1.Node
	pods   map[string]*corev1.Pod
	onNode map[string][]*corev1.Pod // by target node, in the order of their names

	watchers []*view
}

// change is one event of a watch: exactly one of the objects is set; gone says that it was the last of it.
type change struct {
	ds   *appsv1.DaemonSet
	node *corev1.Node
	pod  *corev1.Pod
	gone bool
}

func newStore(w *world) *store {
	return &store{w: w, nodes: map[string]*corev1.Node{}, pods: map[string]*corev1.Pod{}, onNode: map[string][]*corev1.Pod{}}
}

func (s *store) newUID() types.UID {
	s.uids++
	return types.UID("uid-" + strconv.Itoa(s.uids))
}

func (s *store) publish(c change) {
	for _, v := range s.watchers {
		v.happened(c)
	}
}

// setDaemonSet stores the DaemonSet, which the caller gives away.
func (s *store) setDaemonSet(ds *appsv1.DaemonSet) {
	s.version++
	ds.ResourceVersion = strconv.FormatInt(s.version, 10)
	before := s.ds
	s.ds = ds
	if before == nil || before.Generation != ds.Generation {
		s.w.truth.specChanged()
	}
	s.publish(change{ds: ds})
}

func (s *store) setNode(n *corev1.Node) {
	s.nodes[n.Name] = n
	s.w.truth.nodeChanged(n.Name)
	s.publish(change{node: n})
}

func (s *store) removeNode(name string) {
	n := s.nodes[name]
	delete(s.nodes, name)
	s.w.truth.nodeChanged(name)
	s.publish(change{node: n, gone: true})
}

// setPod stores a pod, which the caller gives away.
func (s *store) setPod(p *corev1.Pod) {
	before := s.pods[p.Name]
	s.pods[p.Name] = p
	node := machine.TargetNode(p)
	here := s.onNode[node]
	i, known := slices.BinarySearchFunc(here, p.Name, comparePod)
	if known {
		here[i] = p
	} else {
		s.onNode[node] = slices.Insert(here, i, p)
	}
	s.w.truth.ledger.SetPod(p)
	s.w.truth.podChanged(node)
	s.publish(change{pod: p})
	s.w.podStored(before, p)
}

// removePod ends a pod, if it is that very one.
func (s *store) removePod(name string, uid types.UID) {
	p := s.pods[name]
	if p == nil || p.UID != uid {
		return
	}
	delete(s.pods, name)
	node := machine.TargetNode(p)
	here := s.onNode[node]
	if i, known := slices.BinarySearchFunc(here, name, comparePod); known {
		if here = slices.Delete(here, i, i+1); len(here) == 0 {
			delete(s.onNode, node)
		} else {
			s.onNode[node] = here
		}
	}
	s.w.truth.ledger.Remove(placement.PodKey(p.Namespace, name))
	s.w.truth.podChanged(node)
	s.publish(change{pod: p, gone: true})
}

func comparePod(p *corev1.Pod, name string) int { return strings.Compare(p.Name, name) }

// changePod puts a changed copy of a pod in its place, if it is that very one. The copy is shallow: f replaces
// slices and maps, and does not write into them.
func (s *store) changePod(name string, uid types.UID, f func(*corev1.Pod)) {
	if p := s.pods[name]; p != nil && p.UID == uid {
		changed := *p
		f(&changed)
		s.setPod(&changed)
	}
}

// created is how a create went.
type created int

const (
	stores created = iota
	exists
)

// createPod stores a new pod, unless the name is taken.
func (s *store) createPod(p *corev1.Pod) (*corev1.Pod, created) {
	if holder := s.pods[p.Name]; holder != nil {
		return holder, exists
	}
	p.UID = s.newUID()
	p.CreationTimestamp = metav1.NewTime(s.w.now.Truncate(time.Second))
	p.Status.Phase = corev1.PodPending
	s.setPod(p)
	return p, stores
}

// deletePod marks a pod, or ends it at once if it runs nowhere, as the API does.
func (s *store) deletePod(name string, uid types.UID) {
	p := s.pods[name]
	switch {
	case p == nil || p.UID != uid:
	case p.Spec.NodeName == "" || ended(p):
		s.removePod(name, uid)
	case p.DeletionTimestamp == nil:
		now := metav1.NewTime(s.w.now)
		s.changePod(name, uid, func(p *corev1.Pod) { p.DeletionTimestamp = &now })
	}
}

func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded
}

func isReady(p *corev1.Pod) bool {
	return len(p.Status.Conditions) > 0 && p.Status.Conditions[0].Status == corev1.ConditionTrue
}

// isAvailable says whether the pod has been ready for minReady.
func isAvailable(p *corev1.Pod, minReady time.Duration, now time.Time) bool {
	return isReady(p) && !p.Status.Conditions[0].LastTransitionTime.Add(minReady).After(now)
}

// ready makes a pod running, ready or not.
func ready(is bool, now time.Time) func(*corev1.Pod) {
	status := corev1.ConditionFalse
	if is {
		status = corev1.ConditionTrue
	}
	return func(p *corev1.Pod) {
		p.Status.Phase = corev1.PodRunning
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status, LastTransitionTime: metav1.NewTime(now)}}
	}
}

func failed(p *corev1.Pod) { p.Status.Phase, p.Status.Conditions = corev1.PodFailed, nil }
