package pods

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestImageVolumesArePulledFirst(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		c := command("c", "run")
		c.VolumeMounts = []corev1.VolumeMount{{Name: "models", MountPath: "/models"}}
		pod := podNamed("p", c)
		pod.Spec.Volumes = []corev1.Volume{{Name: "models", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "models:1", PullPolicy: corev1.PullIfNotPresent}}}}
		n.create(pod)
		after(2 * time.Second)
		n.want("p", "Pending c:ErrImagePull")
		n.images.Publish("models:1")
		after(20 * time.Second)
		n.want("p", "Running c:running*")
		if _, events := n.log(); slices.ContainsFunc(events, func(e string) bool { return strings.Contains(e, "FailedMount") }) {
			t.Errorf("an image that cannot be pulled is shown as a failed mount: %v", events)
		}
		if list := n.manager.WantedImages(); !slices.Contains(list, "models:1") {
			t.Errorf("the image may be collected under the pod: %v", list)
		}
	})
}
