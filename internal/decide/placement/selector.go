package placement

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// selectorRule is nodeSelector: every label must be there with this very value. Sorted by key.
type selectorRule []labelPair

type labelPair struct{ key, value string }

func compileSelector(m map[string]string) selectorRule {
	r := make(selectorRule, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		r = append(r, labelPair{k, m[k]})
	}
	return r
}

func (r selectorRule) judge(n *Node) Outcome {
	for _, p := range r {
		if v, ok := n.Labels[p.key]; !ok || v != p.value {
			return Out
		}
	}
	return In
}

func (r selectorRule) explain(n *Node) []Reason {
	var reasons []Reason
	for _, p := range r {
		if v, ok := n.Labels[p.key]; ok && v == p.value {
			continue
		}
		reasons = append(reasons, Reason{
			Rule:  NodeSelector,
			Wants: p.key + "=" + p.value,
			Has:   labelOf(n, p.key),
			Requirement: &corev1.NodeSelectorRequirement{
				Key: p.key, Operator: corev1.NodeSelectorOpIn, Values: []string{p.value},
			},
		})
	}
	return reasons
}

// labelOf says what a node has under a label key.
func labelOf(n *Node, key string) string {
	if v, ok := n.Labels[key]; ok {
		return key + "=" + v
	}
	return "no label " + key
}
