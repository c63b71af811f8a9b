package podlife

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// A pod that asks for resources as a whole shows what it was granted, and what it has.
func TestResourcesOfThePodAsAWhole(t *testing.T) {
	pod := podWith(corev1.Container{Name: "c"})
	pod.Spec.Resources = &corev1.ResourceRequirements{Requests: requests("1", "1Mi")}
	defaults(pod)
	w := newWorld(pod)
	w.settle()
	shows := func(granted, has string) {
		t.Helper()
		s := w.f.Reported
		if s.AllocatedResources.Cpu().String() != granted || s.Resources == nil || s.Resources.Requests.Cpu().String() != has {
			t.Errorf("granted %v, has %v; want %s and %s", s.AllocatedResources, s.Resources, granted, has)
		}
	}
	shows("1", "1")
	pod = pod.DeepCopy()
	pod.Spec.Resources.Requests = requests("2", "1Mi")
	w.f.Pod, w.f.Resizing, w.hold[ResizePod] = pod, true, true
	w.settle()
	shows("2", "1")
	w.command("release ResizePod")
	shows("2", "2")
	if s := Decide(newWorld(podWith(corev1.Container{Name: "c"})).f, epoch).Status; s.Resources != nil || s.AllocatedResources != nil {
		t.Errorf("a pod that asks for nothing as a whole shows %v", s.Resources)
	}
}
