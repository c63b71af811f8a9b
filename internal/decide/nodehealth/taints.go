package nodehealth

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

type signal struct {
	condition corev1.NodeConditionType
	status    corev1.ConditionStatus
	key       string
}

// signals say which condition, in which status, is which NoSchedule taint. The order is that in which taints are
// added.
var signals = []signal{
	{corev1.NodeReady, corev1.ConditionFalse, corev1.TaintNodeNotReady},
	{corev1.NodeReady, corev1.ConditionUnknown, corev1.TaintNodeUnreachable},
	{corev1.NodeMemoryPressure, corev1.ConditionTrue, corev1.TaintNodeMemoryPressure},
	{corev1.NodeDiskPressure, corev1.ConditionTrue, corev1.TaintNodeDiskPressure},
	{corev1.NodePIDPressure, corev1.ConditionTrue, corev1.TaintNodePIDPressure},
	{corev1.NodeNetworkUnavailable, corev1.ConditionTrue, corev1.TaintNodeNetworkUnavailable},
}

// barred lists the keys of the NoSchedule taints that the node's conditions and its cordon ask for. A node that has
// said nothing yet is not ready: it is tainted so at admission, and stays.
func barred(obj *corev1.Node) []string {
	var keys []string
	if readiness(obj) == "" {
		keys = append(keys, corev1.TaintNodeNotReady)
	}
	for _, s := range signals {
		if c := condition(obj, s.condition); c != nil && c.Status == s.status {
			keys = append(keys, s.key)
		}
	}
	if obj.Spec.Unschedulable {
		keys = append(keys, corev1.TaintNodeUnschedulable)
	}
	return keys
}

// ours tells whether the taint is one that this package gives and takes.
func ours(t *corev1.Taint) bool {
	switch t.Effect {
	case corev1.TaintEffectNoSchedule:
		return t.Key == corev1.TaintNodeUnschedulable || slices.ContainsFunc(signals, func(s signal) bool { return s.key == t.Key })
	case corev1.TaintEffectNoExecute:
		return t.Key == corev1.TaintNodeNotReady || t.Key == corev1.TaintNodeUnreachable
	}
	return false
}

func hasOurNoExecute(obj *corev1.Node) bool {
	return slices.ContainsFunc(obj.Spec.Taints, func(t corev1.Taint) bool { return t.Effect == corev1.TaintEffectNoExecute && ours(&t) })
}

// evicting is the key of the NoExecute taint that the node's readiness asks for, "" for none. What a node says of
// itself is taken at its word; that it is silent must have been witnessed. Nobody has to leave a mere name.
func (s *Set) evicting(n *node, now time.Time) string {
	switch {
	case s.fleet.gone():
		return ""
	case readiness(n.obj) == corev1.ConditionFalse && !neverReported(n.obj):
		return corev1.TaintNodeNotReady
	case readiness(n.obj) == corev1.ConditionUnknown && (s.late(n, now) || hasOurNoExecute(n.obj)):
		return corev1.TaintNodeUnreachable
	}
	return ""
}

// mustWait tells whether the node should get a NoExecute taint but has to wait for its turn: one that has either
// of them changes it for the other at once.
func (s *Set) mustWait(n *node, now time.Time) bool {
	return s.evicting(n, now) != "" && !hasOurNoExecute(n.obj) && !n.granted
}

// tainting is the write that gives the node the taints and labels it should have; false if it has them.
func (s *Set) tainting(n *node, now time.Time) (Tainting, bool) {
	want := s.wanted(n, now)
	x := Tainting{Node: n.name, UID: n.obj.UID, Version: n.obj.ResourceVersion, Labels: OldLabels(n.obj.Labels), Taints: []corev1.Taint{}}
	for i := range n.obj.Spec.Taints {
		t := n.obj.Spec.Taints[i]
		if at := slices.IndexFunc(want, func(w corev1.Taint) bool { return w.MatchTaint(&t) }); at >= 0 {
			want = slices.Delete(want, at, at+1)
		} else if ours(&t) {
			x.Removed = append(x.Removed, t)
			continue
		}
		x.Taints = append(x.Taints, t)
	}
	x.Added = want
	x.Taints = append(x.Taints, want...)
	x.Reason = s.reason(n, &x)
	return x, len(x.Added)+len(x.Removed)+len(x.Labels) > 0
}

// wanted lists the taints of ours that the node should have now.
func (s *Set) wanted(n *node, now time.Time) []corev1.Taint {
	var want []corev1.Taint
	since := metav1.NewTime(now)
	for _, key := range barred(n.obj) {
		want = append(want, corev1.Taint{Key: key, Effect: corev1.TaintEffectNoSchedule, TimeAdded: &since})
	}
	if key := s.evicting(n, now); key != "" && !s.mustWait(n, now) {
		want = append(want, corev1.Taint{Key: key, Effect: corev1.TaintEffectNoExecute, TimeAdded: &since})
	}
	return want
}

func (s *Set) reason(n *node, x *Tainting) Reason {
	readinessTaint := func(t corev1.Taint) bool {
		return t.Key == corev1.TaintNodeNotReady || t.Key == corev1.TaintNodeUnreachable
	}
	switch {
	case len(x.Added)+len(x.Removed) == 0:
		return Labels
	case !slices.ContainsFunc(x.Added, readinessTaint) && !slices.ContainsFunc(x.Removed, readinessTaint):
		return Condition
	case s.fleet.gone() && slices.ContainsFunc(x.Removed, readinessTaint) && readiness(n.obj) != corev1.ConditionTrue && len(x.Added) == 0:
		return FleetGone
	}
	switch readiness(n.obj) {
	case corev1.ConditionTrue:
		return Ready
	case corev1.ConditionUnknown:
		return Unreachable
	}
	return NotReady
}
