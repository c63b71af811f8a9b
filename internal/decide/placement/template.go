package placement

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Template is a daemon's pod template, compiled for judging many nodes. It is immutable.
type Template struct {
	rules  []rule
	demand *Demand

	// Tolerations are the template's own and the automatic ones, in the order a created pod has them.
	Tolerations []corev1.Toleration
	// scheduler says what the scheduler alone can judge; empty when nothing.
	scheduler []string

	namespace string
	labels    labels.Set
}

// rule is one reason for a pod not to be on a node. Rules that a template does not use are left out when it is
// compiled, so most templates have one: taints.
type rule interface {
	judge(n *Node) Outcome
	// explain returns a reason if judge's outcome is not In, and none otherwise.
	explain(n *Node) []Reason
}

// Compile prepares the template of a DaemonSet in the namespace. The template is only read, and must not be
// changed later.
func Compile(namespace string, t *corev1.PodTemplateSpec) *Template {
	c := &Template{
		Tolerations: DaemonTolerations(&t.Spec),
		demand:      DemandOf(&t.Spec),
		scheduler:   onlyScheduler(&t.Spec),
		namespace:   namespace,
		labels:      t.Labels,
	}
	if t.Spec.NodeName != "" {
		c.rules = append(c.rules, nodeNameRule(t.Spec.NodeName))
	}
	if len(t.Spec.NodeSelector) > 0 {
		c.rules = append(c.rules, compileSelector(t.Spec.NodeSelector))
	}
	if terms := requiredTerms(&t.Spec); terms != nil {
		c.rules = append(c.rules, compileAffinity(terms))
	}
	c.rules = append(c.rules, taintRule(c.Tolerations))
	return c
}

// Judge says how far the node is open to the template. It allocates nothing.
func (t *Template) Judge(n *Node) Outcome {
	least := In
	for _, r := range t.rules {
		if o := r.judge(n); o < least {
			if least = o; least == Out {
				break
			}
		}
	}
	return least
}

// Explain is Judge with every reason.
func (t *Template) Explain(n *Node) Verdict {
	v := Verdict{Outcome: In}
	for _, r := range t.rules {
		v.Outcome = min(v.Outcome, r.judge(n))
		v.Reasons = append(v.Reasons, r.explain(n)...)
	}
	return v
}

// Demand is the room that one pod of the template takes. The result is shared: it must not be changed.
func (t *Template) Demand() *Demand { return t.demand }

// NeedsScheduler lists what the template asks for that only the scheduler can judge ("required pod
// anti-affinity", "volume data claims a PersistentVolumeClaim"); nil means that a pod may be created bound.
func (t *Template) NeedsScheduler() []string { return t.scheduler }
