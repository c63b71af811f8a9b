package placement

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// affinityRule is required node affinity: one of its terms must hold. A term without requirements matches no
// node, and so does one that cannot be parsed; a rule without terms bars every node.
type affinityRule []affinityTerm

type affinityTerm struct {
	number       int // as the user counts them, from 1
	requirements []requirement
}

// requirement is one line of matchExpressions or matchFields.
type requirement struct {
	spec  corev1.NodeSelectorRequirement
	field bool
	// parsed is nil for a field, and for an expression that cannot be parsed: it matches no node.
	parsed *labels.Requirement
}

// requiredTerms returns nil when the spec has no required node affinity at all.
func requiredTerms(spec *corev1.PodSpec) *corev1.NodeSelector {
	if spec.Affinity == nil || spec.Affinity.NodeAffinity == nil {
		return nil
	}
	return spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
}

func compileAffinity(s *corev1.NodeSelector) affinityRule {
	r := affinityRule{}
	for i := range s.NodeSelectorTerms {
		t := &s.NodeSelectorTerms[i]
		term := affinityTerm{number: i + 1}
		for _, e := range t.MatchExpressions {
			term.requirements = append(term.requirements, requirement{spec: e, parsed: parseExpression(e)})
		}
		for _, f := range t.MatchFields {
			term.requirements = append(term.requirements, requirement{spec: f, field: true})
		}
		r = append(r, term)
	}
	return r
}

var labelOperators = map[corev1.NodeSelectorOperator]selection.Operator{
	corev1.NodeSelectorOpIn:           selection.In,
	corev1.NodeSelectorOpNotIn:        selection.NotIn,
	corev1.NodeSelectorOpExists:       selection.Exists,
	corev1.NodeSelectorOpDoesNotExist: selection.DoesNotExist,
	corev1.NodeSelectorOpGt:           selection.GreaterThan,
	corev1.NodeSelectorOpLt:           selection.LessThan,
}

func parseExpression(e corev1.NodeSelectorRequirement) *labels.Requirement {
	r, err := labels.NewRequirement(e.Key, labelOperators[e.Operator], e.Values)
	if err != nil { // the API refuses these; an old object may still hold one
		return nil
	}
	return r
}

func (r affinityRule) judge(n *Node) Outcome {
	for i := range r {
		if r[i].unmet(n) == nil && len(r[i].requirements) > 0 {
			return In
		}
	}
	return Out
}

// explain returns one reason a term: the first requirement of it that the node does not meet.
func (r affinityRule) explain(n *Node) []Reason {
	if r.judge(n) == In {
		return nil
	}
	if len(r) == 0 {
		return []Reason{{Rule: NodeAffinity, Wants: "nothing (it has no terms)", Has: "no way to match"}}
	}
	var reasons []Reason
	for i := range r {
		why := Reason{Rule: NodeAffinity, Term: r[i].number, Wants: "nothing (the term is empty)", Has: "no way to match"}
		if q := r[i].unmet(n); q != nil {
			why.Wants, why.Has, why.Requirement = q.String(), q.has(n), q.spec.DeepCopy()
		}
		reasons = append(reasons, why)
	}
	return reasons
}

// unmet returns the first requirement of the term that the node does not meet, nil if it meets all.
func (t *affinityTerm) unmet(n *Node) *requirement {
	for i := range t.requirements {
		if !t.requirements[i].met(n) {
			return &t.requirements[i]
		}
	}
	return nil
}

func (q *requirement) met(n *Node) bool {
	if !q.field {
		return q.parsed != nil && q.parsed.Matches(labels.Set(n.Labels))
	}
	if len(q.spec.Values) != 1 {
		return false
	}
	var value string // metadata.name is the only field a node has
	if q.spec.Key == metav1.ObjectNameField {
		value = n.Name
	}
	switch q.spec.Operator {
	case corev1.NodeSelectorOpIn:
		return value == q.spec.Values[0]
	case corev1.NodeSelectorOpNotIn:
		return value != q.spec.Values[0]
	default:
		return false
	}
}

func (q *requirement) has(n *Node) string {
	if q.field {
		return "name " + n.Name
	}
	return labelOf(n, q.spec.Key)
}

// String writes the requirement the way kubectl describe does: "zone in (a, b)".
func (q *requirement) String() string {
	s := q.spec.Key + " " + operatorWords[q.spec.Operator]
	if len(q.spec.Values) == 0 {
		return s
	}
	return s + " (" + strings.Join(q.spec.Values, ", ") + ")"
}

var operatorWords = map[corev1.NodeSelectorOperator]string{
	corev1.NodeSelectorOpIn:           "in",
	corev1.NodeSelectorOpNotIn:        "not in",
	corev1.NodeSelectorOpExists:       "exists",
	corev1.NodeSelectorOpDoesNotExist: "does not exist",
	corev1.NodeSelectorOpGt:           "greater than",
	corev1.NodeSelectorOpLt:           "less than",
}
