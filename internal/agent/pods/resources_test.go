package pods

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// The scores are the kubelet's, on a machine with 1000 MiB.
func TestOOMScores(t *testing.T) {
	memory := func(name, request, limit string) corev1.Container {
		c := corev1.Container{Name: name}
		if request != "" {
			c.Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(request), corev1.ResourceCPU: resource.MustParse("1")}
		}
		if limit != "" {
			c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(limit), corev1.ResourceCPU: resource.MustParse("1")}
		}
		return c
	}
	always := corev1.ContainerRestartPolicyAlways
	sidecar := memory("side", "50Mi", "")
	sidecar.RestartPolicy = &always
	initial := memory("init", "50Mi", "")
	with := func(cs ...corev1.Container) *corev1.Pod {
		return &corev1.Pod{Spec: corev1.PodSpec{InitContainers: []corev1.Container{sidecar, initial}, Containers: cs}}
	}
	whole := with(memory("c", "100Mi", ""))
	whole.Spec.Resources = &corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("450Mi")}}
	for _, c := range []struct {
		what string
		pod  *corev1.Pod
		name string
		want int64
	}{
		{"guaranteed", &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{memory("c", "1Mi", "1Mi")}}}, "c", -997},
		{"best effort", &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{memory("c", "", "")}}}, "c", 1000},
		{"burstable", with(memory("c", "100Mi", "")), "c", 900},
		{"asks for nothing", with(memory("c", "", "")), "c", 999},
		{"asks for everything", with(memory("c", "1000Mi", "")), "c", 3},
		{"sidecar", with(memory("c", "100Mi", ""), memory("d", "200Mi", "")), "side", 900},
		{"sidecar that asks for more", with(memory("c", "10Mi", "")), "side", 950},
		{"init container", with(memory("c", "100Mi", "")), "init", 950},
		{"share of the pod's request", whole, "c", 800}, // (450 - 150) / 3 more
	} {
		if got := oomScore(c.pod, containerOf(c.pod, c.name), 1000<<20); got != c.want {
			t.Errorf("%s: %d, want %d", c.what, got, c.want)
		}
	}
}
