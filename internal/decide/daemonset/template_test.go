package daemonset

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// TestPodsOfATemplate: pods share what they have in common, and nothing else: neither the template nor a pod that was
// made before is changed by the next.
func TestPodsOfATemplate(t *testing.T) {
	ds := richDaemonSet()
	ds.Spec.Template.Spec.Affinity = &corev1.Affinity{
		NodeAffinity: &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: 1}}},
		PodAffinity:  &corev1.PodAffinity{},
	}
	before := ds.DeepCopy()
	template := readSpec(ds, "1").template
	a := template.Pod(Create{Node: "a", Name: "pod-a", Bound: true})
	was := a.DeepCopy()
	b := template.Pod(Create{Node: "b", Name: "pod-b"})
	if d := cmp.Diff(was, a); d != "" {
		t.Errorf("the second pod changed the first: %s", d)
	}
	if d := cmp.Diff(before, ds); d != "" {
		t.Errorf("a pod changed the DaemonSet: %s", d)
	}
	if TargetNode(a) != "a" || TargetNode(b) != "b" || a.Spec.NodeName != "a" || b.Spec.NodeName != "" {
		t.Errorf("the pods are for %s and %s", TargetNode(a), TargetNode(b))
	}
	if x := b.Spec.Affinity; x.PodAffinity == nil || len(x.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution) != 1 {
		t.Errorf("the template's affinity is lost: %v", x)
	}
}
