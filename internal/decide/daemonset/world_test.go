package daemonset

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/everynode/everynode/internal/decide/placement"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// world is a cluster in memory: what the API stores, and a watch per pod and node that may lag behind it.
type world struct {
	now    time.Time
	ds     *appsv1.DaemonSet
	nodes  map[string]*corev1.Node
	pods   map[string]*corev1.Pod
	uids   int
	set    *Set
	ledger *placement.Ledger

	unseen []event // in the order in which they happened
	last   Actions
}

// event is one thing that the watch has not delivered yet.
type event struct {
	key string // events of one key stay in order
	do  func(*Set)
}

func newDaemonSet(strategy appsv1.DaemonSetUpdateStrategy) *appsv1.DaemonSet {
	labels := map[string]string{"app": "agent"}
	return &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ops", Name: "agent", UID: "ds-uid", Generation: 1},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "agent", Image: "agent:1"}}},
			},
			UpdateStrategy: strategy,
		},
	}
}

func rolling(maxUnavailable, maxSurge string) appsv1.DaemonSetUpdateStrategy {
	u, m := intstr.Parse(maxUnavailable), intstr.Parse(maxSurge)
	return appsv1.DaemonSetUpdateStrategy{
		Type:          appsv1.RollingUpdateDaemonSetStrategyType,
		RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxUnavailable: &u, MaxSurge: &m},
	}
}

func newWorld(ds *appsv1.DaemonSet) *world {
	w := &world{now: epoch, ds: ds, nodes: map[string]*corev1.Node{}, pods: map[string]*corev1.Pod{}, ledger: placement.NewLedger()}
	w.restart()
	return w
}

func (w *world) revision() string { return RevisionHash(&w.ds.Spec.Template, nil) }

// restart is a new leader: it starts from what is stored, with nothing unseen and nothing remembered.
func (w *world) restart() {
	w.ledger = placement.NewLedger()
	w.set = New(w.ds.DeepCopy(), w.revision(), Options{Ledger: w.ledger})
	for _, n := range w.nodes {
		w.sendNode(w.set, n)
	}
	for _, p := range w.pods {
		w.sendPod(w.set, p)
	}
	w.unseen = nil
}

func (w *world) sendNode(s *Set, n *corev1.Node) {
	f := placement.NodeOf(n)
	w.ledger.SetNode(f)
	s.SetNode(f)
}

func (w *world) sendPod(s *Set, p *corev1.Pod) {
	w.ledger.SetPod(p)
	s.SetPod(PodOf(p))
}

func testNode(name string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"pool": "a"}},
		Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("4Gi"),
			corev1.ResourcePods: resource.MustParse("110"),
		}},
	}
}

func (w *world) setNode(n *corev1.Node) {
	n = n.DeepCopy()
	w.nodes[n.Name] = n
	w.happen("node/"+n.Name, func(s *Set) { w.sendNode(s, n) })
}

func (w *world) removeNode(name string) {
	delete(w.nodes, name)
	w.happen("node/"+name, func(s *Set) { w.ledger.RemoveNode(name); s.RemoveNode(name) })
}

// setPod stores a pod and shows it.
func (w *world) setPod(p *corev1.Pod) {
	p = p.DeepCopy()
	w.pods[p.Name] = p
	w.happen("pod/"+p.Name, func(s *Set) { w.sendPod(s, p) })
}

func (w *world) removePod(p *corev1.Pod) {
	delete(w.pods, p.Name)
	w.happen("pod/"+p.Name, func(s *Set) {
		w.ledger.Remove(placement.PodKey(p.Namespace, p.Name))
		s.RemovePod(p.Name, p.UID)
	})
}

// changePod lets f change a stored pod.
func (w *world) changePod(name string, f func(*corev1.Pod)) {
	p := w.pods[name].DeepCopy()
	f(p)
	w.setPod(p)
}

func ready(is bool, at time.Time) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		status := corev1.ConditionFalse
		if is {
			status = corev1.ConditionTrue
		}
		p.Status.Phase = corev1.PodRunning
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status, LastTransitionTime: metav1.NewTime(at)}}
	}
}

func phase(ph corev1.PodPhase) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Status.Phase, p.Status.Conditions = ph, nil }
}

// terminate is a graceful delete: pods that have ended, or are bound nowhere, go at once, as in the API.
func (w *world) terminate(name string) {
	p := w.pods[name]
	switch {
	case p.Spec.NodeName == "" || p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded:
		w.removePod(p)
	case p.DeletionTimestamp == nil:
		now := metav1.NewTime(w.now)
		w.changePod(name, func(p *corev1.Pod) { p.DeletionTimestamp = &now })
	}
}

func (w *world) happen(key string, do func(*Set)) { w.unseen = append(w.unseen, event{key, do}) }

// deliver lets the machine see event i of those that are due: the oldest of each key.
func (w *world) deliver(i int) {
	due := w.due()
	at := due[i%len(due)]
	e := w.unseen[at]
	w.unseen = slices.Delete(w.unseen, at, at+1)
	e.do(w.set)
}

func (w *world) due() []int {
	var due []int
	seen := map[string]bool{}
	for i, e := range w.unseen {
		if !seen[e.key] {
			due, seen[e.key] = append(due, i), true
		}
	}
	return due
}

func (w *world) deliverAll() {
	for len(w.unseen) > 0 {
		w.deliver(0)
	}
}

// next asks the machine and keeps what it said.
func (w *world) next(room int) Actions {
	w.last = w.set.Next(w.now, room)
	return w.last
}

// outcome is how a create went.
type outcome int

const (
	worked  outcome = iota
	refused         // nothing was stored, and the answer says so
	lost            // it was stored, but the answer was lost
)

// performCreate does what the API would do.
func (w *world) performCreate(c Create, how outcome) {
	if how == refused {
		w.set.CreateFailed(c.Name, Refused, w.now)
		return
	}
	if p, exists := w.pods[c.Name]; exists {
		owner := metav1.GetControllerOf(p)
		if owner != nil && owner.UID == w.ds.UID && TargetNode(p) == c.Node {
			w.set.Created(c.Name, p.UID)
		} else {
			w.set.CreateFailed(c.Name, Taken, w.now)
		}
		return
	}
	p := c.Template.Pod(c)
	w.uids++
	p.UID = types.UID(fmt.Sprintf("uid-%d", w.uids))
	p.CreationTimestamp = metav1.NewTime(w.now.Truncate(time.Second))
	p.Status.Phase = corev1.PodPending
	w.setPod(p)
	if how == lost {
		w.set.CreateFailed(c.Name, Lost, w.now)
		return
	}
	w.set.Created(c.Name, p.UID)
}

func (w *world) performDelete(d Delete, how outcome) {
	if how == refused {
		w.set.DeleteFailed(d.Name, d.UID, w.now)
		return
	}
	if p := w.pods[d.Name]; p != nil && p.UID == d.UID {
		w.terminate(d.Name)
	}
	if how == lost {
		w.set.DeleteFailed(d.Name, d.UID, w.now)
	}
}

func (w *world) performClaim(c Claim, how outcome) {
	p := w.pods[c.Name]
	if how == refused || p == nil || p.UID != c.UID {
		w.set.ClaimFailed(c.Name, c.UID, w.now)
		return
	}
	w.changePod(c.Name, func(p *corev1.Pod) {
		p.OwnerReferences = nil
		if !c.Release {
			p.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(w.ds, Kind)}
		}
	})
}

func (w *world) performCheck(c Check) {
	p := w.pods[c.Name]
	if p == nil || (c.UID != "" && p.UID != c.UID) {
		w.set.Gone(c.Name, c.UID)
	} else {
		w.set.Found(c.Name, p.UID, p.DeletionTimestamp != nil)
	}
}

func (w *world) performStatus(st *Status, works bool) {
	if st != nil && works {
		st.Write(&w.ds.Status)
		w.set.SetSpec(w.ds.DeepCopy(), w.revision())
	}
	if st != nil {
		w.set.StatusDone(works, w.now)
	}
}

// perform does all of the actions, each as how says.
func (w *world) perform(a Actions, how func() outcome) {
	for _, c := range a.Creates {
		w.performCreate(c, how())
	}
	for _, d := range a.Deletes {
		w.performDelete(d, how())
	}
	for _, c := range a.Claims {
		w.performClaim(c, how())
	}
	for _, c := range a.Checks {
		w.performCheck(c)
	}
	w.performStatus(a.Status, how() == worked)
}

// kubelet starts every pod that is stored: unbound pods are bound, terminating ones go, and if the world is
// healthy those that are not ready become ready again.
func (w *world) kubelet(healthy bool) {
	for _, name := range slices.Sorted(maps.Keys(w.pods)) {
		p := w.pods[name]
		switch {
		case p.DeletionTimestamp != nil:
			w.removePod(p)
		case p.Spec.NodeName == "":
			if w.nodes[TargetNode(p)] != nil {
				w.changePod(name, func(p *corev1.Pod) { p.Spec.NodeName = TargetNode(p) })
			}
		case w.nodes[p.Spec.NodeName] == nil:
			w.removePod(p) // the pod garbage collector
		case p.Status.Phase == corev1.PodPending, healthy && p.Status.Phase == corev1.PodRunning && p.Status.Conditions[0].Status != corev1.ConditionTrue:
			w.changePod(name, ready(true, w.now))
		}
	}
}

// settle runs the world, with everything working and seen, until nothing happens any more. It returns how many
// rounds that took, or -1 if it never ended.
func (w *world) settle() int {
	for round := range 2000 {
		w.deliverAll()
		a := w.next(1000)
		w.perform(a, func() outcome { return worked })
		w.deliverAll()
		w.kubelet(true)
		if a.Len() == 0 && a.Status == nil && len(w.unseen) == 0 {
			b := w.next(1000)
			if b.Len() > 0 {
				w.perform(b, func() outcome { return worked })
				continue
			}
			if b.WakeUp.IsZero() {
				return round
			}
			w.now = b.WakeUp
			continue
		}
		w.now = w.now.Add(10 * time.Millisecond)
	}
	return -1
}

// update changes the template, as kubectl set image does.
func (w *world) update(image string) {
	w.ds = w.ds.DeepCopy()
	w.ds.Generation++
	w.ds.Spec.Template.Spec.Containers[0].Image = image
	ds, rev := w.ds.DeepCopy(), w.revision()
	w.set.SetSpec(ds, rev)
}
