package upstream

import (
	"testing"

	"github.com/everynode/everynode/internal/agent/manifests"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	v1 "k8s.io/kubernetes/pkg/apis/core/v1"
	"pgregory.net/rapid"
)

// TestStaticPodDefaults compares the defaults of static pods with the API server's, on random pods of what a static
// pod may have.
func TestStaticPodDefaults(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pod := &corev1.Pod{}
		pod.Spec.HostNetwork = rapid.Bool().Draw(t, "hostNetwork")
		pod.Spec.RestartPolicy = oneOf("", corev1.RestartPolicyNever).Draw(t, "restartPolicy")
		pod.Spec.Volumes = several(t, 3, drawVolume)
		pod.Spec.InitContainers = several(t, 2, drawStaticContainer)
		pod.Spec.Containers = several(t, 2, drawStaticContainer)
		theirs := pod.DeepCopy()
		v1.SetObjectDefaults_Pod(theirs)
		manifests.SetDefaults(pod)
		if diff := cmp.Diff(theirs, pod); diff != "" {
			t.Fatalf("defaults (-upstream +ours):\n%s", diff)
		}
	})
}

func drawVolume(t *rapid.T) corev1.Volume {
	return corev1.Volume{Name: "v", VolumeSource: oneOf(
		corev1.VolumeSource{},
		corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}},
		corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/x"}},
		corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "i:latest"}},
		corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "i:1"}},
		corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}, {}}}},
		corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}}, {}}}},
	).Draw(t, "volume")}
}

func drawStaticContainer(t *rapid.T) corev1.Container {
	get := func() *corev1.HTTPGetAction { return &corev1.HTTPGetAction{} }
	c := corev1.Container{
		Image: oneOf("i", "i:latest", "i:1", "host:5000/i", "i@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa").Draw(t, "image"),
		Ports: several(t, 2, func(t *rapid.T) corev1.ContainerPort {
			return corev1.ContainerPort{ContainerPort: 80, HostPort: oneOf[int32](0, 81).Draw(t, "hostPort"), Protocol: oneOf("", corev1.ProtocolUDP).Draw(t, "protocol")}
		}),
		Env: several(t, 2, func(t *rapid.T) corev1.EnvVar {
			return corev1.EnvVar{ValueFrom: oneOf(nil, &corev1.EnvVarSource{}, &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{}}, &corev1.EnvVarSource{FileKeyRef: &corev1.FileKeySelector{}}).Draw(t, "from").DeepCopy()}
		}),
	}
	if chance(t, 2) {
		c.Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(oneOf("1", "1n", "100m").Draw(t, "cpu"))}
	}
	if chance(t, 3) {
		c.Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(oneOf("1", "1500u", "64Mi").Draw(t, "memory"))}
	}
	if chance(t, 2) {
		c.LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: get()}, PeriodSeconds: oneOf[int32](0, 5).Draw(t, "period")}
		c.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{}}}
		c.StartupProbe = &corev1.Probe{}
	}
	if chance(t, 3) {
		c.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{HTTPGet: get()}, PreStop: &corev1.LifecycleHandler{}}
	}
	return c
}
