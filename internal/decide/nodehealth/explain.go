package nodehealth

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/duration"
)

// Health is what can be told of a node from itself and its lease, without having watched it.
type Health struct {
	// Ready is the status of its Ready condition, "" if it has none; Reason and Message say why.
	Ready           corev1.ConditionStatus
	Reason, Message string
	// NeverReported says that no agent has spoken for the node since it was registered.
	NeverReported bool
	// Back says that it was silent, and has renewed its lease since, but not reported yet.
	Back bool
	// LastSign is its last sign of life that is known, or when it was registered.
	LastSign time.Time
	// Taints are those that its health has earned it.
	Taints []corev1.Taint
}

// Explain reads a node, and when its lease was last renewed; zero if that is not known.
func Explain(obj *corev1.Node, renewed time.Time) Health {
	h := Health{Ready: readiness(obj), NeverReported: neverReported(obj), LastSign: obj.CreationTimestamp.Time}
	if c := condition(obj, corev1.NodeReady); c != nil {
		h.Reason, h.Message = c.Reason, c.Message
		h.NeverReported = h.NeverReported || c.Reason == reasonNeverUpdated
		h.Back = c.Status == corev1.ConditionUnknown && renewed.After(c.LastTransitionTime.Time)
		if t := c.LastHeartbeatTime.Time; t.After(h.LastSign) && !h.NeverReported {
			h.LastSign = t
		}
	}
	if renewed.After(h.LastSign) {
		h.LastSign = renewed
	}
	for i := range obj.Spec.Taints {
		if t := obj.Spec.Taints[i]; Bars(&t) {
			h.Taints = append(h.Taints, t)
		}
	}
	return h
}

// Bars says whether a taint is there because its node is silent or not ready.
func Bars(t *corev1.Taint) bool {
	return ours(t) && slices.Contains([]string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable}, t.Key)
}

// Word is "ready", "not ready" or "silent".
func (h *Health) Word() string {
	switch {
	case h.Ready == corev1.ConditionTrue:
		return "ready"
	case h.Ready == corev1.ConditionUnknown, h.NeverReported:
		return "silent"
	}
	return "not ready"
}

// Trouble says in one sentence why the node runs no new pods, "" if it is ready. What it says of itself is quoted;
// a silent node cannot say anything, so its silence is.
func (h *Health) Trouble(now time.Time) string {
	ago := duration.HumanDuration(now.Sub(h.LastSign))
	switch {
	case h.Ready == corev1.ConditionTrue:
		return ""
	case h.NeverReported:
		return fmt.Sprintf("the node is silent: no agent has reported for it since it was registered %s ago", ago)
	case h.Ready != corev1.ConditionUnknown:
		return "the node is not ready" + quoted(h.Reason) + quoted(h.Message)
	case h.Back:
		return fmt.Sprintf("the node was silent: its agent gave a sign of life %s ago, but has not said yet that it is ready", ago)
	}
	return fmt.Sprintf("the node is silent: the last sign of life of its agent is %s old", ago)
}

func quoted(s string) string {
	if s == "" {
		return ""
	}
	return ": " + s
}
