package podlife

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/everynode/everynode/internal/decide/placement"
)

// Host is the node, as admission sees it.
type Host struct {
	// Node as the API has it; nil if that is not known (yet). Rules about its labels and taints
	// hold no pod up then.
	Node *corev1.Node
	// Allocatable is what pods may ask for.
	Allocatable corev1.ResourceList
	// UnsafeSysctls are those that pods may set beside the safe ones.
	UnsafeSysctls []string
	// AppArmor: the kernel enforces AppArmor profiles.
	AppArmor bool
}

// Admission is what becomes of a pod that is bound to this node.
type Admission struct {
	// Rejected says why it cannot run here, or is nil.
	Rejected *Verdict
	// Preempted are the pods that make room for it, because it is critical.
	Preempted []*corev1.Pod
}

// Reasons of rejected pods, as the kubelet's users know them. Pods that ask for more than is left
// are OutOfcpu, OutOfmemory, OutOfpods and so on.
const (
	NodeAffinity     = "NodeAffinity"
	NodePorts        = "NodePorts"
	TaintToleration  = "TaintToleration"
	unexpectedReason = "UnexpectedAdmissionError"
)

// Admit decides whether a pod that is bound to this node can run beside the others, which were
// admitted before and have not ended. Reasons and messages are the kubelet's:
// https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/#self-healing-behavior
func Admit(pod *corev1.Pod, others []*corev1.Pod, host Host) Admission {
	for _, v := range []*Verdict{wrongSystem(pod), forbiddenSysctl(pod, host.UnsafeSysctls), unenforced(pod, host.AppArmor), looseGroups(pod, host.Node)} {
		if v != nil {
			return Admission{Rejected: v}
		}
	}
	missing := crowded(others, host.Allocatable)
	missing = append(missing, shortages(pod, others, host.Allocatable, inOrder(Requests(pod)))...)
	rule := brokenRule(pod, others, host.Node)
	switch {
	case Critical(pod) && rule == nil && len(missing) > 0:
		victims, err := preempt(pod, others, missing)
		if err != nil {
			return Admission{Rejected: &Verdict{unexpectedReason, "Unexpected error while attempting to recover from admission failure: " + err.Error()}}
		}
		return Admission{Preempted: victims}
	case len(missing) > 0 && !Critical(pod):
		return Admission{Rejected: missing[0].verdict()}
	}
	return Admission{Rejected: rule}
}

func wrongSystem(pod *corev1.Pod) *Verdict {
	if label, has := pod.Labels[corev1.LabelOSStable]; has && label != string(corev1.Linux) {
		return &Verdict{"PodOSSelectorNodeLabelDoesNotMatch", "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label"}
	}
	if os := pod.Spec.OS; os != nil && os.Name != corev1.Linux {
		return &Verdict{"PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"}
	}
	return nil
}

// brokenRule is the first rule but room that keeps the pod out.
func brokenRule(pod *corev1.Pod, others []*corev1.Pod, node *corev1.Node) *Verdict {
	if node != nil {
		if matches, _ := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node); !matches {
			return failed(NodeAffinity, "node(s) didn't match Pod's node affinity/selector")
		}
	}
	if slices.ContainsFunc(others, func(other *corev1.Pod) bool { return portsClash(pod, other) }) {
		return failed(NodePorts, "node(s) didn't have free ports for the requested pod ports")
	}
	if node != nil && !Static(pod) && slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return drivesOut(pod, &t) }) {
		return failed(TaintToleration, "node(s) had taints that the pod didn't tolerate")
	}
	return nil
}

func failed(rule, why string) *Verdict {
	return &Verdict{rule, fmt.Sprintf("Predicate %s failed: %s", rule, why)}
}

// drivesOut: the taint evicts pods, this one too.
func drivesOut(pod *corev1.Pod, t *corev1.Taint) bool {
	return t.Effect == corev1.TaintEffectNoExecute &&
		!slices.ContainsFunc(pod.Spec.Tolerations, func(tol corev1.Toleration) bool { return placement.Tolerates(&tol, t) })
}

// shortage is a resource of which the node has too little left.
type shortage struct {
	name                      corev1.ResourceName
	requested, used, capacity int64
}

func (s shortage) verdict() *Verdict {
	return &Verdict{"OutOf" + string(s.name), fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d",
		s.name, s.requested, s.used, s.capacity)}
}

// crowded: the node has as many pods as it takes.
func crowded(others []*corev1.Pod, allocatable corev1.ResourceList) []shortage {
	if pods, ok := allocatable[corev1.ResourcePods]; ok && int64(len(others)) >= pods.Value() {
		return []shortage{{corev1.ResourcePods, 1, int64(len(others)), pods.Value()}}
	}
	return nil
}

// shortages compares requests with what the node offers. Extended resources that the node does not
// know are somebody else's: the scheduler's, or a driver's.
func shortages(pod *corev1.Pod, others []*corev1.Pod, allocatable corev1.ResourceList, names []corev1.ResourceName) []shortage {
	var list []shortage
	requests := Requests(pod)
	for _, name := range names {
		room, known := allocatable[name]
		want := requests[name]
		if want.IsZero() || !known && (len(allocatable) == 0 || !strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)) {
			continue
		}
		used := resource.Quantity{}
		for _, other := range others {
			used.Add(Request(other, name))
		}
		sum := used.DeepCopy()
		sum.Add(want)
		if sum.Cmp(room) > 0 {
			list = append(list, shortage{name, amount(name, want), amount(name, used), amount(name, room)})
		}
	}
	return list
}

// inOrder are the names of a list, those that users look for first.
func inOrder(list corev1.ResourceList) []corev1.ResourceName {
	names := []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage}
	for _, name := range slices.Sorted(maps.Keys(list)) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func amount(name corev1.ResourceName, q resource.Quantity) int64 {
	if name == corev1.ResourceCPU {
		return q.MilliValue()
	}
	return q.Value()
}

// Requests is what the pod as a whole asks for.
func Requests(pod *corev1.Pod) corev1.ResourceList {
	return resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
}

// Limits are the sums of what the pod's containers may have; those without a limit add nothing.
func Limits(pod *corev1.Pod) corev1.ResourceList {
	return resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{})
}

// Request is what the pod as a whole asks for of one resource.
func Request(pod *corev1.Pod, name corev1.ResourceName) resource.Quantity { return Requests(pod)[name] }

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
