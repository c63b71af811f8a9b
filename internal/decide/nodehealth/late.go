package nodehealth

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// reasonJoining is Ready's reason in a Node that internal/controllers/join made to reserve a name: nobody has
// reported for that node yet.
const reasonJoining = "Joining"

// reasonNeverUpdated is upstream's word for a silent node that has never reported.
const reasonNeverUpdated = "NodeStatusNeverUpdated"

// vouched are the conditions that a node's agent answers for. NetworkUnavailable is the control plane's.
var vouched = []corev1.NodeConditionType{corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure}

// deadline is when the node's silence becomes a fact. Silence counts from the last sign of life, or from when we
// began to watch.
func (s *Set) deadline(n *node) time.Time {
	grace := s.o.GracePeriod
	if neverReported(n.obj) {
		grace = s.o.StartupGracePeriod
	}
	since := n.seen
	if s.watching.After(since) {
		since = s.watching
	}
	return since.Add(grace)
}

func (s *Set) late(n *node, now time.Time) bool { return !now.Before(s.deadline(n)) }

// watchFrom lets silence count from now on only.
func (s *Set) watchFrom(now time.Time) {
	s.watching = now
	for _, n := range s.nodes {
		if n.obj != nil {
			s.touch(n)
		}
	}
}

// slept tells whether we were not run for so long that signs of life may lie unread.
func (s *Set) slept(now time.Time) bool {
	return !s.promised.IsZero() && now.Sub(s.promised) > s.o.GracePeriod/2
}

// heartbeat tells whether the node itself has reported in between.
func heartbeat(before, now *corev1.Node) bool {
	c := condition(now, corev1.NodeReady)
	if c == nil || c.Status == corev1.ConditionUnknown {
		return false
	}
	old := condition(before, corev1.NodeReady)
	return old == nil || !old.LastHeartbeatTime.Equal(&c.LastHeartbeatTime)
}

func neverReported(obj *corev1.Node) bool {
	c := condition(obj, corev1.NodeReady)
	return c == nil || c.Status != corev1.ConditionTrue && c.Reason == reasonJoining
}

// unknown makes the conditions of a silent node, in the words that kubectl's users know.
func unknown(obj *corev1.Node, now time.Time) []corev1.NodeCondition {
	never := neverReported(obj)
	var out []corev1.NodeCondition
	for _, kind := range vouched {
		c := corev1.NodeCondition{Type: kind, LastHeartbeatTime: obj.CreationTimestamp}
		old := condition(obj, kind)
		if old != nil {
			if old.Status == corev1.ConditionUnknown {
				continue
			}
			c = *old
		}
		c.Status, c.LastTransitionTime = corev1.ConditionUnknown, metav1.NewTime(now)
		if c.Reason, c.Message = "NodeStatusUnknown", "Kubelet stopped posting node status."; old == nil || never && kind == corev1.NodeReady {
			c.Reason, c.Message = reasonNeverUpdated, "Kubelet never posted node status."
		}
		out = append(out, c)
	}
	return out
}

// status is the write that makes a silent node Unknown.
func (s *Set) status(n *node, now time.Time) Status {
	reason := Silent
	if neverReported(n.obj) {
		reason = NeverReported
	}
	return Status{
		Node: n.name, UID: n.obj.UID, Version: n.obj.ResourceVersion,
		Conditions: unknown(n.obj, now), Reason: reason, LastSign: n.seen,
	}
}

// condition finds a condition of a node; nil for none, or no node.
func condition(obj *corev1.Node, kind corev1.NodeConditionType) *corev1.NodeCondition {
	if obj == nil {
		return nil
	}
	for i := range obj.Status.Conditions {
		if obj.Status.Conditions[i].Type == kind {
			return &obj.Status.Conditions[i]
		}
	}
	return nil
}

// readiness is the status of Ready, "" while there is none.
func readiness(obj *corev1.Node) corev1.ConditionStatus {
	if c := condition(obj, corev1.NodeReady); c != nil {
		return c.Status
	}
	return ""
}

func transitionOf(obj *corev1.Node) time.Time {
	if c := condition(obj, corev1.NodeReady); c != nil {
		return c.LastTransitionTime.Time
	}
	return obj.CreationTimestamp.Time
}
