package placement

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
)

func TestContradiction(t *testing.T) {
	is := func(key string, op corev1.NodeSelectorOperator, values ...string) corev1.NodeSelectorRequirement {
		return corev1.NodeSelectorRequirement{Key: key, Operator: op, Values: values}
	}
	for name, c := range map[string]struct {
		selector map[string]string
		nodeName string
		terms    []corev1.NodeSelectorTerm
		want     string // "" for none
	}{
		"no affinity":    {selector: map[string]string{"a": "1"}},
		"in and in":      {terms: expressions(is("a", "In", "1", "2"), is("a", "In", "2"))},
		"disjoint":       {terms: expressions(is("a", "In", "1"), is("a", "In", "2")), want: "a in (2) contradicts a in (1)"},
		"selector":       {selector: map[string]string{"a": "1"}, terms: expressions(is("a", "NotIn", "1")), want: "a not in (1) contradicts a in (1)"},
		"absent":         {terms: expressions(is("a", "Exists"), is("a", "DoesNotExist")), want: "a does not exist contradicts a exists"},
		"absent, not in": {terms: expressions(is("a", "NotIn", "1"), is("a", "DoesNotExist"))},
		"bounds":         {terms: expressions(is("a", "Gt", "4"), is("a", "Lt", "5")), want: "a less than (5) contradicts a greater than (4)"},
		"room":           {terms: expressions(is("a", "Gt", "4"), is("a", "Lt", "6"))},
		"in bounds":      {terms: expressions(is("a", "Gt", "4"), is("a", "In", "3", "5"))},
		"out of bounds":  {terms: expressions(is("a", "Gt", "4"), is("a", "In", "3", "x")), want: "contradicts"},
		"node name": {nodeName: "n", terms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{is(metav1.ObjectNameField, "NotIn", "n")}}},
			want: "metadata.name not in (n) contradicts metadata.name in (n)"},
		"another term": {terms: append(expressions(is("a", "Exists"), is("a", "DoesNotExist")), expressions(is("b", "Exists"))...)},
		"empty term":   {terms: []corev1.NodeSelectorTerm{{}}, want: "affinity term 1: the term is empty"},
		"no terms":     {terms: []corev1.NodeSelectorTerm{}, want: "no terms"},
		"malformed":    {terms: expressions(is("a", "Gt", "many")), want: "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := corev1.PodSpec{NodeSelector: c.selector, NodeName: c.nodeName}
			if c.terms != nil {
				spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: c.terms}}}
			}
			got := Compile("ops", &corev1.PodTemplateSpec{Spec: spec}).Contradiction()
			if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func expressions(all ...corev1.NodeSelectorRequirement) []corev1.NodeSelectorTerm {
	return []corev1.NodeSelectorTerm{{MatchExpressions: all}}
}

// A template that contradicts itself has no node, whatever the node is like.
func TestContradictionIsNeverIn(t *testing.T) {
	operators := []corev1.NodeSelectorOperator{"In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"}
	keys, values := []string{"a", "b"}, []string{"1", "2", "3", "x"}
	rapid.Check(t, func(t *rapid.T) {
		var term corev1.NodeSelectorTerm
		for range rapid.IntRange(1, 5).Draw(t, "requirements") {
			r := corev1.NodeSelectorRequirement{Key: rapid.SampledFrom(keys).Draw(t, "key"), Operator: rapid.SampledFrom(operators).Draw(t, "operator")}
			switch r.Operator {
			case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
				r.Values = rapid.SliceOfN(rapid.SampledFrom(values), 1, 3).Draw(t, "values")
			case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
				r.Values = []string{rapid.SampledFrom(values[:3]).Draw(t, "bound")}
			}
			term.MatchExpressions = append(term.MatchExpressions, r)
		}
		spec := corev1.PodSpec{Affinity: &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{term}},
		}}}
		c := Compile("ops", &corev1.PodTemplateSpec{Spec: spec})
		possible := false
		for _, a := range append(values, "0", "2000000", "") {
			for _, b := range append(values, "0", "2000000", "") {
				n := &Node{Name: "n", Labels: map[string]string{}}
				if a != "" {
					n.Labels["a"] = a
				}
				if b != "" {
					n.Labels["b"] = b
				}
				possible = possible || c.Judge(n) == In
			}
		}
		if clash := c.Contradiction(); possible != (clash == "") {
			t.Fatalf("a node can be in: %v, but the contradiction is %q: %+v", possible, clash, term.MatchExpressions)
		}
	})
}
