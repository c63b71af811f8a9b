package podlife

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
)

// Admit says why a pod that is bound to this node cannot run beside the others, or
// nil. The reasons are the kubelet's. Others are pods that were admitted before
// and have not ended.
func Admit(pod *corev1.Pod, others []*corev1.Pod, allocatable corev1.ResourceList) *Verdict {
	if os := pod.Spec.OS; os != nil && os.Name != corev1.Linux {
		return &Verdict{"PodOSNotSupported", fmt.Sprintf("the pod asks for the operating system %q; this node runs linux", os.Name)}
	}
	for _, other := range others {
		if portsClash(pod, other) {
			return &Verdict{"NodePorts", "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"}
		}
	}
	return outOf(pod, others, allocatable)
}

func outOf(pod *corev1.Pod, others []*corev1.Pod, allocatable corev1.ResourceList) *Verdict {
	if pods, ok := allocatable[corev1.ResourcePods]; ok && int64(len(others)) >= pods.Value() {
		return &Verdict{"OutOfpods", fmt.Sprintf("Node didn't have enough resource: pods, requested: 1, used: %d, capacity: %d", len(others), pods.Value())}
	}
	return lacking(pod, others, allocatable, []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage})
}

// lacking compares requests with what the node offers. Resources that the node does
// not list are judged by the scheduler alone.
func lacking(pod *corev1.Pod, others []*corev1.Pod, allocatable corev1.ResourceList, names []corev1.ResourceName) *Verdict {
	for _, name := range names {
		room, ok := allocatable[name]
		want := Request(pod, name)
		if !ok || want.IsZero() {
			continue
		}
		used := resource.Quantity{}
		for _, other := range others {
			used.Add(Request(other, name))
		}
		sum := used.DeepCopy()
		sum.Add(want)
		if sum.Cmp(room) > 0 {
			return &Verdict{"OutOf" + string(name), fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d",
				name, amount(name, want), amount(name, used), amount(name, room))}
		}
	}
	return nil
}

func amount(name corev1.ResourceName, q resource.Quantity) int64 {
	if name == corev1.ResourceCPU {
		return q.MilliValue()
	}
	return q.Value()
}

// Request is what the pod asks for of a resource: what it says of itself as a whole,
// or else the sum of its containers and sidecars, or what its greediest init
// container needs, whichever is more.
func Request(pod *corev1.Pod, name corev1.ResourceName) resource.Quantity {
	return resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})[name]
}

// portsClash: both want the same port of the host, on addresses that overlap.
func portsClash(a, b *corev1.Pod) bool {
	taken := hostPorts(b)
	for p := range hostPorts(a) {
		for q := range taken {
			if p.port == q.port && p.protocol == q.protocol && (p.ip == q.ip || p.ip == anyIP || q.ip == anyIP) {
				return true
			}
		}
	}
	return false
}

const anyIP = "0.0.0.0"

type hostPort struct {
	port     int32
	protocol corev1.Protocol
	ip       string
}

func hostPorts(pod *corev1.Pod) map[hostPort]bool {
	ports := map[hostPort]bool{}
	list := pod.Spec.Containers
	for i := range pod.Spec.InitContainers {
		if initRole(&pod.Spec.InitContainers[i]) == sidecar {
			list = append(list[:len(list):len(list)], pod.Spec.InitContainers[i])
		}
	}
	for _, c := range list {
		for _, p := range c.Ports {
			if p.HostPort == 0 {
				continue
			}
			h := hostPort{p.HostPort, p.Protocol, p.HostIP}
			if h.ip == "" {
				h.ip = anyIP
			}
			if h.protocol == "" {
				h.protocol = corev1.ProtocolTCP
			}
			ports[h] = true
		}
	}
	return ports
}
