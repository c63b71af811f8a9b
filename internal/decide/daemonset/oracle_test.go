package daemonset

import (
	"slices"
	"strings"
	"time"

	"github.com/everynode/everynode/internal/decide/placement"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// oracle is the second implementation: it looks at every node each time, keeps nothing, and follows upstream's
// controller step by step. It takes no failure, delay or write in flight into account.
type oracle struct {
	now   time.Time
	ds    *appsv1.DaemonSet
	hash  string
	nodes []*corev1.Node
	pods  map[string][]*corev1.Pod // by target node; without those that are over

	creates []string // nodes
	deletes []string // pods
	status  Status
}

func askOracle(w *world) *oracle {
	o := &oracle{now: w.now, ds: w.ds, hash: w.revision(), pods: map[string][]*corev1.Pod{}}
	for _, n := range w.nodes {
		o.nodes = append(o.nodes, n)
	}
	slices.SortFunc(o.nodes, func(a, b *corev1.Node) int { return strings.Compare(a.Name, b.Name) })
	for _, p := range w.pods {
		ended := p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded
		if owner := metav1.GetControllerOf(p); owner == nil || owner.UID != w.ds.UID || (ended && p.DeletionTimestamp != nil) {
			continue
		}
		o.pods[TargetNode(p)] = append(o.pods[TargetNode(p)], p)
	}
	for _, pods := range o.pods {
		slices.SortFunc(pods, keepFirst)
	}
	if w.ds.DeletionTimestamp == nil {
		o.manage()
		o.roll()
	}
	o.count()
	slices.Sort(o.creates)
	slices.Sort(o.deletes)
	o.deletes = slices.Compact(o.deletes)
	return o
}

func keepFirst(a, b *corev1.Pod) int {
	switch {
	case a.Spec.NodeName != "" && b.Spec.NodeName == "":
		return -1
	case a.Spec.NodeName == "" && b.Spec.NodeName != "":
		return 1
	case !a.CreationTimestamp.Equal(&b.CreationTimestamp):
		return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
	default:
		return strings.Compare(a.Name, b.Name)
	}
}

func (o *oracle) open(n *corev1.Node) placement.Outcome {
	return placement.Compile(o.ds.Namespace, &o.ds.Spec.Template).Explain(placement.NodeOf(n)).Outcome
}

func (o *oracle) node(name string) *corev1.Node {
	for _, n := range o.nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

func (o *oracle) condition(p *corev1.Pod) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == corev1.PodReady {
			return &p.Status.Conditions[i]
		}
	}
	return &corev1.PodCondition{}
}

func (o *oracle) isReady(p *corev1.Pod) bool { return o.condition(p).Status == corev1.ConditionTrue }

func (o *oracle) isAvailable(p *corev1.Pod) bool {
	minReady := time.Duration(o.ds.Spec.MinReadySeconds) * time.Second
	since := o.condition(p).LastTransitionTime
	return o.isReady(p) && (minReady == 0 || (!since.IsZero() && !since.Add(minReady).After(o.now)))
}

func (o *oracle) isUpdated(p *corev1.Pod) bool {
	return p.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] == o.hash
}

func (o *oracle) surges() bool { return o.scaled(true, 1) > 0 }

func (o *oracle) scaled(surge bool, of int) int {
	r := o.ds.Spec.UpdateStrategy.RollingUpdate
	if r == nil {
		return 0
	}
	v := r.MaxUnavailable
	if surge {
		v = r.MaxSurge
	}
	n, _ := intstr.GetScaledValueFromIntOrPercent(v, of, true)
	return n
}

// manage is what each node needs by itself.
func (o *oracle) manage() {
	for name, pods := range o.pods {
		if o.node(name) != nil {
			continue
		}
		for _, p := range pods {
			if p.Spec.NodeName == "" && p.DeletionTimestamp == nil {
				o.deletes = append(o.deletes, p.Name)
			}
		}
	}
	for _, n := range o.nodes {
		o.manageNode(n, o.pods[n.Name])
	}
}

func (o *oracle) manageNode(n *corev1.Node, pods []*corev1.Pod) {
	outcome := o.open(n)
	if outcome == placement.Out {
		for _, p := range pods {
			if p.DeletionTimestamp == nil {
				o.deletes = append(o.deletes, p.Name)
			}
		}
		return
	}
	var running []*corev1.Pod
	blocking := 0 // pods that a new one has to wait for
	for _, p := range pods {
		switch {
		case p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded:
			o.deletes = append(o.deletes, p.Name) // its successor comes at once: ours differs from upstream here
		case p.DeletionTimestamp != nil:
			if !o.surges() {
				blocking++
			}
		default:
			blocking++
			running = append(running, p)
		}
	}
	if blocking == 0 && outcome == placement.In {
		o.creates = append(o.creates, n.Name)
	}
	if !o.surges() {
		for i := 1; i < len(running); i++ {
			o.deletes = append(o.deletes, running[i].Name)
		}
		return
	}
	var oldPod, newPod *corev1.Pod
	for _, p := range running {
		switch {
		case o.isUpdated(p) && newPod == nil:
			newPod = p
		case !o.isUpdated(p) && oldPod == nil:
			oldPod = p
		default:
			o.deletes = append(o.deletes, p.Name)
		}
	}
	if oldPod != nil && newPod != nil && (!o.isReady(oldPod) || o.isAvailable(newPod)) {
		o.deletes = append(o.deletes, oldPod.Name)
	}
}

// roll is the update, after manage: what manage deletes is gone for it.
func (o *oracle) roll() {
	if o.ds.Spec.UpdateStrategy.Type != appsv1.RollingUpdateDaemonSetStrategyType {
		return
	}
	desired := 0
	names := map[string]bool{}
	for _, n := range o.nodes {
		if o.open(n) == placement.In {
			desired++
			names[n.Name] = true
		}
	}
	for name := range o.pods {
		if o.node(name) != nil { // ours differs from upstream here: nodes that are gone use no budget
			names[name] = true
		}
	}
	var sortedNames []string
	for name := range names {
		sortedNames = append(sortedNames, name)
	}
	slices.Sort(sortedNames)
	maxSurge, maxUnavailable := o.scaled(true, desired), o.scaled(false, desired)
	if maxSurge == 0 && maxUnavailable == 0 && desired > 0 {
		maxUnavailable = 1
	}
	if o.surges() {
		o.rollSurge(sortedNames, desired, maxSurge)
	} else {
		o.rollUnavailable(sortedNames, maxUnavailable)
	}
}

// pair returns the pods of a node that manage has left.
func (o *oracle) pair(name string) (oldPod, newPod *corev1.Pod) {
	for _, p := range o.pods[name] {
		if p.DeletionTimestamp != nil || slices.Contains(o.deletes, p.Name) {
			continue
		}
		if o.isUpdated(p) {
			newPod = p
		} else {
			oldPod = p
		}
	}
	return oldPod, newPod
}

// thinsOut says whether manage has deleted a pod of the node that still runs.
func (o *oracle) thinsOut(name string) bool {
	return slices.ContainsFunc(o.pods[name], func(p *corev1.Pod) bool {
		return p.DeletionTimestamp == nil && slices.Contains(o.deletes, p.Name)
	})
}

func (o *oracle) rollUnavailable(names []string, maxUnavailable int) {
	unavailable := 0
	var candidates, replace []string
	for _, name := range names {
		oldPod, newPod := o.pair(name)
		switch {
		case (oldPod == nil) == (newPod == nil):
			unavailable++
		case newPod != nil:
			if !o.isAvailable(newPod) {
				unavailable++
			}
		case !o.isAvailable(oldPod):
			unavailable++
			replace = append(replace, oldPod.Name)
		default:
			candidates = append(candidates, oldPod.Name)
		}
	}
	n := min(max(maxUnavailable-unavailable, 0), len(candidates))
	o.deletes = append(append(o.deletes, replace...), candidates[:n]...)
}

func (o *oracle) rollSurge(names []string, desired, maxSurge int) {
	surging, surviving := 0, 0
	var now, candidates, sunset, gone []string
	for _, name := range names {
		oldPod, newPod := o.pair(name)
		if (oldPod != nil && o.isAvailable(oldPod)) || (oldPod == nil && newPod != nil && o.isAvailable(newPod)) {
			surviving++
		}
		n := o.node(name)
		switch {
		case oldPod == nil:
		case newPod != nil:
			if !o.isAvailable(newPod) {
				surging++
			}
		case o.open(n) != placement.In && o.isAvailable(oldPod):
			sunset = append(sunset, oldPod.Name)
		case o.open(n) != placement.In:
			gone = append(gone, oldPod.Name)
		case o.thinsOut(name): // ours differs from upstream here: it would have three pods for a moment
		case o.isAvailable(oldPod):
			candidates = append(candidates, name)
		default:
			now = append(now, name)
		}
	}
	o.deletes = append(o.deletes, gone...)
	o.deletes = append(o.deletes, sunset[:min(max(surviving-desired, 0), len(sunset))]...)
	o.creates = append(o.creates, now...)
	// Those just started beside an unavailable pod surge too.
	o.creates = append(o.creates, candidates[:min(max(maxSurge-surging-len(now), 0), len(candidates))]...)
}

func (o *oracle) count() {
	st := Status{ObservedGeneration: o.ds.Generation}
	for _, n := range o.nodes {
		pods := o.pods[n.Name]
		if o.open(n) != placement.In {
			if len(pods) > 0 {
				st.NumberMisscheduled++
			}
			continue
		}
		st.DesiredNumberScheduled++
		if len(pods) == 0 {
			continue
		}
		st.CurrentNumberScheduled++
		if o.isReady(pods[0]) {
			st.NumberReady++
		}
		if o.isAvailable(pods[0]) {
			st.NumberAvailable++
		}
		if o.isUpdated(pods[0]) {
			st.UpdatedNumberScheduled++
		}
	}
	st.NumberUnavailable = st.DesiredNumberScheduled - st.NumberAvailable
	o.status = st
}
