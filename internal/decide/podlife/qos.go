package podlife

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// QOS is the pod's quality-of-service class:
// https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/
// The API server's word is taken where it is given.
func QOS(pod *corev1.Pod) corev1.PodQOSClass {
	if pod.Status.QOSClass != "" {
		return pod.Status.QOSClass
	}
	guaranteed, asked := true, false
	for _, c := range asking(pod) {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			limit := c.Resources.Limits[name]
			request, given := c.Resources.Requests[name]
			if !given {
				request = limit
			}
			asked = asked || positive(limit) || positive(request)
			guaranteed = guaranteed && positive(limit) && limit.Cmp(request) == 0
		}
	}
	switch {
	case !asked:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}

func positive(q resource.Quantity) bool { return q.Sign() > 0 }

// asking are the containers whose resources count: a pod that asks as a whole is as
// one container.
func asking(pod *corev1.Pod) []corev1.Container {
	if r := pod.Spec.Resources; r != nil && len(r.Requests)+len(r.Limits) > 0 {
		return []corev1.Container{{Resources: *r}}
	}
	return withInit(pod)
}

func withInit(pod *corev1.Pod) []corev1.Container {
	all := make([]corev1.Container, 0, len(pod.Spec.InitContainers)+len(pod.Spec.Containers))
	return append(append(all, pod.Spec.InitContainers...), pod.Spec.Containers...)
}
