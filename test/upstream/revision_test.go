package upstream

import (
	"testing"

	machine "github.com/everynode/everynode/internal/decide/daemonset"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/kubernetes/pkg/controller"
	"k8s.io/kubernetes/pkg/controller/daemon"
	"pgregory.net/rapid"
)

// TestRevision compares the hash and the stored data of random templates. Upstream compares data byte by byte:
// were ours another, an exchange of controllers would restart every pod. The whole stored objects, of both
// controllers, are compared in history_test.go.
func TestRevision(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		for range 20 {
			ds := drawDaemonSet(t)
			drawTemplate(t, &ds.Spec.Template)
			if chance(t, 3) {
				count := rapid.Int32Min(0).Draw(t, "collisions")
				ds.Status.CollisionCount = &count
			}
			hash := controller.ComputeHash(&ds.Spec.Template, ds.Status.CollisionCount)
			if got := machine.RevisionHash(&ds.Spec.Template, ds.Status.CollisionCount); got != hash {
				t.Fatalf("hash %s, upstream's %s, of %+v", got, hash, ds.Spec.Template)
			}
			data, err := machine.RevisionData(ds)
			if err != nil {
				t.Fatal(err)
			}
			same, err := daemon.Match(ds, machine.NewRevision(ds, data, 1))
			if err != nil || !same {
				t.Fatalf("upstream does not know its template again (%v) in %s", err, data)
			}
		}
	})
}

// drawTemplate adds fields of every JSON type.
func drawTemplate(t *rapid.T, to *corev1.PodTemplateSpec) {
	text := rapid.StringN(0, 8, -1)
	c := &to.Spec.Containers[0]
	c.Image = text.Draw(t, "image")
	c.Args = several(t, 3, func(t *rapid.T) string { return text.Draw(t, "arg") })
	c.Env = several(t, 2, func(t *rapid.T) corev1.EnvVar {
		return corev1.EnvVar{Name: text.Draw(t, "name"), Value: text.Draw(t, "value")}
	})
	c.Resources.Requests = corev1.ResourceList{}
	for _, r := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		if chance(t, 2) {
			c.Resources.Requests[r] = resource.MustParse(oneOf("0", "100m", "0.5", "1", "1e3", "64Mi", "1536Mi", "2G").Draw(t, "amount"))
		}
	}
	c.Ports = several(t, 2, func(t *rapid.T) corev1.ContainerPort {
		return corev1.ContainerPort{ContainerPort: rapid.Int32Range(1, 65535).Draw(t, "port"), Protocol: corev1.ProtocolTCP}
	})
	if chance(t, 3) {
		c.LivenessProbe = &corev1.Probe{
			ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
				Path: text.Draw(t, "path"), Port: oneOf(intstr.FromInt32(80), intstr.FromString("web")).Draw(t, "port"),
			}},
			PeriodSeconds: rapid.Int32Range(1, 600).Draw(t, "period"),
		}
	}
	if chance(t, 3) {
		privileged := rapid.Bool().Draw(t, "privileged")
		c.SecurityContext = &corev1.SecurityContext{Privileged: &privileged}
	}
	if chance(t, 2) {
		seconds := rapid.Int64Range(0, 1<<40).Draw(t, "grace")
		to.Spec.TerminationGracePeriodSeconds = &seconds
	}
	if chance(t, 3) {
		to.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{
			HostPath: &corev1.HostPathVolumeSource{Path: text.Draw(t, "path")},
		}}}
	}
	to.Annotations = map[string]string{"note": text.Draw(t, "note")}
	if chance(t, 4) {
		to.CreationTimestamp = metav1.Unix(rapid.Int64Range(0, 1<<31).Draw(t, "created"), 0)
	}
}
