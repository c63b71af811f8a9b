package placement

import (
	"encoding/json"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// repellers are the required anti-affinities of bound pods: such a pod keeps others away, and where it does is the
// scheduler's to judge. Pods that repel alike (those of one workload) are one repeller with a count.
type repellers struct {
	byPod   map[string]*repeller
	alike   map[string]*repeller
	version int // changes with the set of repellers
}

type repeller struct {
	key   string
	count int
	terms []repelTerm
}

// repelTerm matches by namespace and labels. Topology is left out on purpose: whether the two would share a domain
// needs other nodes, and the answer "maybe" only sends a pod to the scheduler.
type repelTerm struct {
	namespaces []string // nil: any
	selector   labels.Selector
}

func newRepellers() repellers {
	return repellers{byPod: map[string]*repeller{}, alike: map[string]*repeller{}}
}

// set enters a pod, if it repels any.
func (r *repellers) set(pod string, p *corev1.Pod) {
	r.remove(pod)
	a := p.Spec.Affinity
	if a == nil || a.PodAntiAffinity == nil || len(a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution) == 0 {
		return
	}
	terms := a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	b, err := json.Marshal(terms)
	if err != nil {
		return // API types always marshal
	}
	key := p.Namespace + "/" + string(b)
	x := r.alike[key]
	if x == nil {
		x = &repeller{key: key, terms: repelTerms(p.Namespace, terms)}
		r.alike[key] = x
		r.version++
	}
	x.count++
	r.byPod[pod] = x
}

func (r *repellers) remove(pod string) {
	x := r.byPod[pod]
	if x == nil {
		return
	}
	delete(r.byPod, pod)
	if x.count--; x.count == 0 {
		delete(r.alike, x.key)
		r.version++
	}
}

func repelTerms(namespace string, terms []corev1.PodAffinityTerm) []repelTerm {
	out := make([]repelTerm, 0, len(terms))
	for i := range terms {
		selector, err := metav1.LabelSelectorAsSelector(terms[i].LabelSelector)
		if err != nil {
			continue // matches nothing
		}
		t := repelTerm{selector: selector, namespaces: terms[i].Namespaces}
		switch {
		case terms[i].NamespaceSelector != nil: // labels of namespaces are not known here
			t.namespaces = nil
		case len(t.namespaces) == 0:
			t.namespaces = []string{namespace}
		}
		out = append(out, t)
	}
	return out
}

// Repels says whether the required anti-affinity of any bound pod may match pods of the template. The answer
// holds as long as RepelVersion stays the same.
func (l *Ledger) Repels(t *Template) bool {
	for _, x := range l.repellers.alike {
		for i := range x.terms {
			term := &x.terms[i]
			if (term.namespaces == nil || slices.Contains(term.namespaces, t.namespace)) && term.selector.Matches(t.labels) {
				return true
			}
		}
	}
	return false
}

// RepelVersion changes whenever the answers of Repels may.
func (l *Ledger) RepelVersion() int { return l.repellers.version }
