package pods

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/everynode/everynode/internal/agent/manifests"
	"github.com/everynode/everynode/internal/decide/podlife"
)

// event records an event of a pod, or of one of its containers.
func (m *Manager) event(pod *corev1.Pod, container, eventType, reason, message string) {
	if pod.Name == "" || pod.ResourceVersion == "" && !manifests.IsStatic(pod) {
		return // known from the runtime only: there is no object to speak of
	}
	ref := &corev1.ObjectReference{
		APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
	}
	if container != "" {
		ref.FieldPath = fieldPath(pod, container)
	}
	m.o.Recorder.Event(ref, eventType, reason, message)
}

// fieldPath names the container in the pod, as kubectl describe shows it.
func fieldPath(pod *corev1.Pod, container string) string {
	for _, c := range pod.Spec.InitContainers {
		if c.Name == container {
			return fmt.Sprintf("spec.initContainers{%s}", container)
		}
	}
	for _, c := range pod.Spec.EphemeralContainers {
		if c.Name == container {
			return fmt.Sprintf("spec.ephemeralContainers{%s}", container)
		}
	}
	return fmt.Sprintf("spec.containers{%s}", container)
}

// announce records the events of containers that began to wait in a back-off.
func (m *Manager) announce(pod *corev1.Pod, before, now *corev1.PodStatus) {
	waited := map[string]string{}
	for _, c := range allStatuses(before) {
		waited[c.Name] = waitingReason(c)
	}
	for _, c := range allStatuses(now) {
		reason := waitingReason(c)
		if reason == waited[c.Name] {
			continue
		}
		switch reason {
		case podlife.CrashLoopBackOff:
			m.event(pod, c.Name, corev1.EventTypeWarning, "BackOff", fmt.Sprintf("Back-off restarting failed container %s in pod %s", c.Name, podName(pod)))
		case podlife.ImagePullBackOff:
			m.event(pod, c.Name, corev1.EventTypeNormal, "BackOff", fmt.Sprintf("Back-off pulling image %q", c.Image))
			m.event(pod, c.Name, corev1.EventTypeWarning, "Failed", "Error: "+podlife.ImagePullBackOff)
		}
	}
}

func allStatuses(s *corev1.PodStatus) []corev1.ContainerStatus {
	all := append([]corev1.ContainerStatus(nil), s.InitContainerStatuses...)
	return append(append(all, s.ContainerStatuses...), s.EphemeralContainerStatuses...)
}

func waitingReason(c corev1.ContainerStatus) string {
	if c.State.Waiting == nil {
		return ""
	}
	return c.State.Waiting.Reason
}
