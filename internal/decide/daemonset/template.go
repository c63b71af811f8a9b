package daemonset

import (
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Template makes the pods of one revision of a DaemonSet. It is immutable.
type Template struct {
	pod      corev1.Pod // everything but the name and the node
	revision string
}

// newTemplate prepares what all pods have in common: labels, the owner, the automatic tolerations.
func newTemplate(ds *appsv1.DaemonSet, sp *spec) *Template {
	t := &Template{revision: sp.revision}
	t.pod.ObjectMeta = metav1.ObjectMeta{
		Namespace:       ds.Namespace,
		Labels:          maps.Clone(ds.Spec.Template.Labels),
		Annotations:     ds.Spec.Template.Annotations,
		Finalizers:      ds.Spec.Template.Finalizers,
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(ds, Kind)},
	}
	if t.pod.Labels == nil {
		t.pod.Labels = map[string]string{}
	}
	if sp.templateGeneration != "" {
		t.pod.Labels[generationLabel] = sp.templateGeneration
	}
	if sp.revision != "" {
		t.pod.Labels[revisionLabel] = sp.revision
	}
	t.pod.Spec = ds.Spec.Template.Spec
	t.pod.Spec.Tolerations = sp.placement.Tolerations
	return t
}

// Kind is the owner of every pod and revision here.
var Kind = appsv1.SchemeGroupVersion.WithKind("DaemonSet")

// Revision is the revision hash that the template's pods are labelled with.
func (t *Template) Revision() string { return t.revision }

// Pod makes the pod of a Create. What all pods of the template have in common (labels, containers, volumes and so on)
// they share: it must only be read.
func (t *Template) Pod(c Create) *corev1.Pod {
	p := t.pod
	p.Name = c.Name
	p.Spec.Affinity = pinned(t.pod.Spec.Affinity, c.Node)
	if c.Bound {
		p.Spec.NodeName = c.Node
	}
	return &p
}

// pinned replaces the required node affinity, which the node is known to meet, by its name, as upstream does:
// the scheduler, and everyone who reads the pod, knows by it where the pod belongs.
func pinned(template *corev1.Affinity, node string) *corev1.Affinity {
	var a corev1.Affinity
	var n corev1.NodeAffinity
	if template != nil {
		a = *template
		if a.NodeAffinity != nil {
			n = *a.NodeAffinity
		}
	}
	n.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchFields: []corev1.NodeSelectorRequirement{{
				Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{node},
			}},
		}},
	}
	a.NodeAffinity = &n
	return &a
}
