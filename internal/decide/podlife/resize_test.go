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

// A limit of the pod is the limit of each container without one: it restarts containers too.
func TestPodLimitsReachContainers(t *testing.T) {
	c := corev1.Container{Name: "c", ResizePolicy: []corev1.ContainerResizePolicy{{ResourceName: corev1.ResourceCPU, RestartPolicy: corev1.RestartContainer}}}
	c.Resources.Limits = requests("", "1Mi")
	pod := podWith(c)
	pod.Spec.Resources = &corev1.ResourceRequirements{Limits: requests("1", "5Mi")}
	got := Effective(&pod.Spec, &pod.Spec.Containers[0])
	if got.Limits.Cpu().String() != "1" || got.Limits.Memory().String() != "1Mi" || len(pod.Spec.Containers[0].Resources.Limits) != 1 {
		t.Errorf("%v from %v", got.Limits, pod.Spec.Containers[0].Resources.Limits)
	}
	defaults(pod)
	w := newWorld(pod)
	w.settle()
	w.newest("c").Resources = &got
	pod = pod.DeepCopy()
	pod.Spec.Resources.Limits = requests("2", "5Mi")
	w.f.Pod, w.f.Resizing = pod, true
	plan := Decide(w.f, w.now)
	if len(plan.Steps) != 1 || plan.Steps[0].Kind != StopContainer || plan.Steps[0].Again != AtOnce {
		t.Errorf("steps %v; want one restart", plan.Steps)
	}
	if limits := plan.Status.ContainerStatuses[0].Resources.Limits; len(limits) != 1 {
		t.Errorf("the container shows limits that it did not ask for: %v", limits)
	}
}
