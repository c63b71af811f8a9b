package daemonset

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// Pod is what the machine needs to know of a pod: a few words beside the pod's own labels. It is immutable.
type Pod struct {
	Namespace, Name string
	UID             types.UID
	Labels          labels.Set
	// Controlled says that the pod has a controller; Controller is its UID.
	Controlled bool
	Controller types.UID
	// Node is where the pod is or belongs: see TargetNode.
	Node string

	facts
}

// facts are those of a pod that change in its life.
type facts struct {
	created int64 // unix seconds, the precision that the API stores
	// readySince is when the pod became ready; meaningful only while ready.
	readySince time.Time

	bound       bool
	ready       bool
	failed      bool
	succeeded   bool
	terminating bool // a deletion timestamp is set
}

// pod is what the machine keeps of a pod.
type pod struct {
	name string
	uid  types.UID
	slot *slot
	facts

	// askedAt is when we asked for it to be deleted; zero when we did not, or it did not work.
	askedAt time.Time
	// doubted says that a delete did not report success: the pod may be going, and the budget counts it so.
	doubted bool
	orphan  bool // matches, but is not ours yet

	revision   string // label controller-revision-hash
	generation string // label pod-template-generation
}

// PodOf takes the facts from a pod, which is only read, and whose labels must not be changed later.
func PodOf(p *corev1.Pod) *Pod {
	f := &Pod{
		Namespace: p.Namespace, Name: p.Name, UID: p.UID, Labels: p.Labels,
		Node: TargetNode(p),
		facts: facts{
			created:     p.CreationTimestamp.Unix(),
			bound:       p.Spec.NodeName != "",
			failed:      p.Status.Phase == corev1.PodFailed,
			succeeded:   p.Status.Phase == corev1.PodSucceeded,
			terminating: p.DeletionTimestamp != nil,
		},
	}
	if owner := metav1.GetControllerOfNoCopy(p); owner != nil {
		f.Controlled, f.Controller = true, owner.UID
	}
	for i := range p.Status.Conditions {
		if c := &p.Status.Conditions[i]; c.Type == corev1.PodReady {
			f.ready, f.readySince = c.Status == corev1.ConditionTrue, c.LastTransitionTime.Time
			break
		}
	}
	return f
}

// ended says that the pod's containers have stopped for good.
func (p *pod) ended() bool { return p.failed || p.succeeded }

// over says that nothing is left to decide about the pod: it has ended and is on its way out, held perhaps by a
// finalizer. It still has its name.
func (p *pod) over() bool { return p.ended() && p.terminating }

// leaving says that the pod goes, seen or asked for.
func (p *pod) leaving() bool { return p.terminating || !p.askedAt.IsZero() }

// availableAt returns when a ready pod counts as available; ok is false if it never will as things are.
func (p *pod) availableAt(minReady time.Duration) (at time.Time, ok bool) {
	if !p.ready || (minReady > 0 && p.readySince.IsZero()) {
		return time.Time{}, false
	}
	return p.readySince.Add(minReady), true
}

// available says whether the pod has been ready for minReady.
func (p *pod) available(minReady time.Duration, now time.Time) bool {
	at, ok := p.availableAt(minReady)
	return ok && (minReady == 0 || !at.After(now))
}

// before orders a node's pods by which one to keep: bound before unbound, then the oldest, then by name.
func (p *pod) before(o *pod) bool {
	switch {
	case p.bound != o.bound:
		return p.bound
	case p.created != o.created:
		return p.created < o.created
	default:
		return p.name < o.name
	}
}

// TargetNode returns the node that a daemon's pod is on or waits for, "" if it says none: spec.nodeName, or
// else the one name in the matchFields of its required node affinity.
func TargetNode(p *corev1.Pod) string {
	if p.Spec.NodeName != "" {
		return p.Spec.NodeName
	}
	a := p.Spec.Affinity
	if a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return ""
	}
	for _, t := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		for _, f := range t.MatchFields {
			if f.Key == metav1.ObjectNameField && f.Operator == corev1.NodeSelectorOpIn {
				if len(f.Values) != 1 {
					return ""
				}
				return f.Values[0]
			}
		}
	}
	return ""
}
