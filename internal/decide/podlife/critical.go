package podlife

import corev1 "k8s.io/api/core/v1"

// CriticalPriority is that of system-cluster-critical; pods from it on are critical.
const CriticalPriority = 2_000_000_000

// Annotations by which pods from files are known, and their mirrors in the API.
const (
	configSource = "kubernetes.io/config.source"
	configMirror = "kubernetes.io/config.mirror"
)

// Static tells that the pod comes from a manifest on the node, not from the API, whatever a pod
// from there says of itself.
func Static(pod *corev1.Pod) bool {
	source, has := pod.Annotations[configSource]
	return has && source != "api" && pod.ResourceVersion == ""
}

// Critical tells that the node does without other pods sooner than without this one: it is static,
// or its priority says so.
func Critical(pod *corev1.Pod) bool {
	_, mirror := pod.Annotations[configMirror]
	return Static(pod) || mirror || pod.Spec.Priority != nil && *pod.Spec.Priority >= CriticalPriority
}
