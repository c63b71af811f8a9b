package placement

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Contradiction says why no node can ever be open to the template, whatever its labels: its own requirements
// exclude each other. It returns "" if some node could be. The API accepts such a template, as it should: the
// requirements may come from several hands.
func (t *Template) Contradiction() string {
	base := demands{}
	var terms affinityRule
	required := false
	for _, r := range t.rules {
		switch r := r.(type) {
		case nodeNameRule:
			base.add(requirement{field: true, spec: corev1.NodeSelectorRequirement{
				Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{string(r)},
			}})
		case selectorRule:
			for _, p := range r {
				base.add(requirement{spec: corev1.NodeSelectorRequirement{
					Key: p.key, Operator: corev1.NodeSelectorOpIn, Values: []string{p.value},
				}})
			}
		case affinityRule:
			terms, required = r, true
		}
	}
	if !required {
		return ""
	}
	if len(terms) == 0 {
		return "its required node affinity has no terms"
	}
	why := make([]string, 0, len(terms))
	for i := range terms {
		clash := terms[i].contradiction(base)
		if clash == "" {
			return ""
		}
		why = append(why, fmt.Sprintf("affinity term %d: %s", terms[i].number, clash))
	}
	return strings.Join(why, "; ")
}

// contradiction adds the term's requirements to the demands of the rest of the template, one by one.
func (t *affinityTerm) contradiction(base demands) string {
	if len(t.requirements) == 0 {
		return "the term is empty"
	}
	all := base.clone()
	for _, q := range t.requirements {
		if clash := all.add(q); clash != "" {
			return clash
		}
	}
	return ""
}

// demands is what is asked of each label, or of the name.
type demands map[string]*labelDemand

// labelDemand is the set of values that one label may have.
type labelDemand struct {
	only            []string // the values allowed; any if anyOf is false
	anyOf           bool
	never           []string
	present, absent bool
	above, below    *int64
	asked           []string // the requirements, for the user
}

func (d demands) clone() demands {
	c := make(demands, len(d))
	for k, v := range d {
		w := *v
		c[k] = &w
	}
	return c
}

// add returns what contradicts the requirement, "" if nothing does.
func (d demands) add(q requirement) string {
	key := q.spec.Key
	if q.field {
		key = "field " + key
	}
	if d[key] == nil {
		d[key] = &labelDemand{}
	}
	l := d[key]
	before := l.asked
	l.asked = append(slices.Clone(l.asked), q.String())
	if !l.narrow(q.spec) {
		return q.String() + " is malformed"
	}
	if l.possible() {
		return ""
	}
	if len(before) == 0 {
		return q.String() + " matches no value"
	}
	return q.String() + " contradicts " + strings.Join(before, " and ")
}

func (l *labelDemand) narrow(q corev1.NodeSelectorRequirement) bool {
	switch q.Operator {
	case corev1.NodeSelectorOpIn:
		l.present = true
		if !l.anyOf {
			l.only, l.anyOf = slices.Clone(q.Values), true
		} else {
			l.only = slices.DeleteFunc(slices.Clone(l.only), func(v string) bool { return !slices.Contains(q.Values, v) })
		}
	case corev1.NodeSelectorOpNotIn:
		l.never = append(slices.Clone(l.never), q.Values...)
	case corev1.NodeSelectorOpExists:
		l.present = true
	case corev1.NodeSelectorOpDoesNotExist:
		l.absent = true
	case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
		return l.bound(q)
	default:
		return false
	}
	return true
}

func (l *labelDemand) bound(q corev1.NodeSelectorRequirement) bool {
	if len(q.Values) != 1 {
		return false
	}
	n, err := strconv.ParseInt(q.Values[0], 10, 64)
	if err != nil {
		return false
	}
	l.present = true
	switch {
	case q.Operator == corev1.NodeSelectorOpGt && (l.above == nil || n > *l.above):
		l.above = &n
	case q.Operator == corev1.NodeSelectorOpLt && (l.below == nil || n < *l.below):
		l.below = &n
	}
	return true
}

// possible says whether a node could have such a label, or lack it if it must.
func (l *labelDemand) possible() bool {
	if l.absent {
		return !l.present
	}
	if l.anyOf {
		return slices.ContainsFunc(l.only, l.allows)
	}
	return l.above == nil || l.below == nil || *l.below-*l.above > 1
}

func (l *labelDemand) allows(value string) bool {
	if slices.Contains(l.never, value) {
		return false
	}
	if l.above == nil && l.below == nil {
		return true
	}
	n, err := strconv.ParseInt(value, 10, 64)
	return err == nil && (l.above == nil || n > *l.above) && (l.below == nil || n < *l.below)
}
