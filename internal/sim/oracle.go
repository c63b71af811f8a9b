package sim

import (
	"math"

	machine "github.com/everynode/everynode/internal/decide/daemonset"
	"github.com/everynode/everynode/internal/decide/placement"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// checkAtRest looks at every node once, plainly, and says whether the world is as it should be when everything
// has worked for long enough.
func (w *world) checkAtRest() {
	var want machine.Status
	want.ObservedGeneration = w.store.ds.Generation
	for _, h := range w.fleet.order {
		w.checkNode(h, &want)
		if w.violation != nil {
			return
		}
	}
	for _, node := range names(w.store.onNode, nil) {
		if h := w.fleet.hosts[node]; h == nil || !h.here {
			w.violate(Converges, []string{node}, "pods are left on node %s, which is gone", node)
			return
		}
	}
	want.NumberUnavailable = want.DesiredNumberScheduled - want.NumberAvailable
	w.checkStatus(want)
	w.checkPlan("the leader", w.leader)
	if w.violation == nil {
		w.leader.stop(w.now)
		w.checkPlan("a new leader", newController(w))
	}
}

// checkNode is the oracle: what a node should have, and what it has.
func (w *world) checkNode(h *host, want *machine.Status) {
	w.checked(Converges)
	var ours []*corev1.Pod
	for _, p := range w.store.onNode[h.name] {
		if w.truth.isOurs(p) {
			ours = append(ours, p)
		}
	}
	outcome := w.truth.outcome(h.name)
	if outcome != placement.In {
		w.checkClosed(h.name, outcome, ours)
		if len(ours) > 0 {
			want.NumberMisscheduled++
		}
		return
	}
	want.DesiredNumberScheduled++
	if len(ours) != 1 {
		w.violate(Converges, []string{h.name}, "node %s should have one pod and has %d", h.name, len(ours))
		return
	}
	want.CurrentNumberScheduled++
	p := ours[0]
	updated := p.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] == w.truth.revision
	if updated {
		want.UpdatedNumberScheduled++
	} else if w.store.ds.Spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		w.violate(Converges, []string{h.name}, "pod %s on node %s is of an old revision", p.Name, h.name)
	}
	switch {
	case isReady(p):
		want.NumberReady++
		want.NumberAvailable++
	case !updated && p.Annotations[revisionMark] == brokenRevision: // OnDelete: it waits for the user
	case p.Spec.NodeName != "" || w.truth.hasRoom(p): // else it waits for room
		w.violate(Converges, []string{h.name}, "pod %s on node %s is not ready (%s, bound %v)", p.Name, h.name, p.Status.Phase, p.Spec.NodeName != "")
	}
}

func (w *world) checkClosed(node string, outcome placement.Outcome, ours []*corev1.Pod) {
	if outcome == placement.Out && len(ours) > 0 || len(ours) > 1 {
		w.violate(Converges, []string{node}, "node %s is %v and has %d pods", node, outcome, len(ours))
	}
}

func (w *world) checkStatus(want machine.Status) {
	var stored appsv1.DaemonSetStatus
	want.Write(&stored)
	got := w.store.ds.Status
	if stored.ObservedGeneration != got.ObservedGeneration || stored.DesiredNumberScheduled != got.DesiredNumberScheduled ||
		stored.CurrentNumberScheduled != got.CurrentNumberScheduled || stored.NumberMisscheduled != got.NumberMisscheduled ||
		stored.NumberReady != got.NumberReady || stored.UpdatedNumberScheduled != got.UpdatedNumberScheduled ||
		stored.NumberAvailable != got.NumberAvailable || stored.NumberUnavailable != got.NumberUnavailable {
		w.violate(Converges, nil, "the status is %+v, and should be %+v", got, stored)
	}
}

func (w *world) checkPlan(whose string, c *controller) {
	w.checked(EmptyPlan)
	if a := c.set.Next(w.now, math.MaxInt); a.Len() > 0 || a.Status != nil {
		w.violate(EmptyPlan, nil, "the world is at rest, but the plan of %s has %d creates, %d deletes, %d claims, %d checks, a status %v",
			whose, len(a.Creates), len(a.Deletes), len(a.Claims), len(a.Checks), a.Status != nil)
	}
}
