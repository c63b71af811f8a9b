package placement

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Node is what placement needs to know of a node: a few pointers into the node object, so that one Node can
// be shared by every DaemonSet. It is immutable.
type Node struct {
	Name   string
	Labels map[string]string
	// Taints holds the taints that bar pods (NoSchedule and NoExecute); PreferNoSchedule bars none.
	Taints []corev1.Taint
	// Allocatable is the node's room before any pod is on it.
	Allocatable Resources
	// MaxPods is how many pods the node takes.
	MaxPods int64
}

// NodeOf takes the facts from a node object, which is only read, and must not be changed later.
func NodeOf(n *corev1.Node) *Node {
	return &Node{
		Name:        n.Name,
		Labels:      n.Labels,
		Taints:      barring(n.Spec.Taints),
		Allocatable: resourcesOf(n.Status.Allocatable),
		MaxPods:     n.Status.Allocatable.Pods().Value(),
	}
}

// Same says whether nothing that placement looks at differs, so that an event may be ignored: most node
// updates are heartbeats.
func (n *Node) Same(o *Node) bool {
	return n.SameRules(o) && n.MaxPods == o.MaxPods && n.Allocatable.equal(o.Allocatable)
}

// SameRules says whether every rule would judge both alike: only their room may differ.
func (n *Node) SameRules(o *Node) bool {
	return n.Name == o.Name && maps.Equal(n.Labels, o.Labels) && slices.EqualFunc(n.Taints, o.Taints, sameTaint)
}

// barring returns the taints that bar pods, without copying when all of them do.
func barring(taints []corev1.Taint) []corev1.Taint {
	bars := func(t corev1.Taint) bool {
		return t.Effect == corev1.TaintEffectNoSchedule || t.Effect == corev1.TaintEffectNoExecute
	}
	if !slices.ContainsFunc(taints, func(t corev1.Taint) bool { return !bars(t) }) {
		return taints
	}
	var kept []corev1.Taint
	for _, t := range taints {
		if bars(t) {
			kept = append(kept, t)
		}
	}
	return kept
}

// sameTaint ignores TimeAdded, which no rule looks at.
func sameTaint(a, b corev1.Taint) bool {
	return a.Key == b.Key && a.Value == b.Value && a.Effect == b.Effect
}
