package node

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// rangePatience is how long a node waits for its pod range before it reports itself ready for
// host-network pods only (every range of the cluster is taken, say).
const rangePatience = 10 * time.Second

// measurement is everything the conditions follow from.
type measurement struct {
	runtime error         // nil: the container runtime answers and says it is ready
	network error         // nil: the pod network is set up and the runtime has seen it
	podCIDR string        // "" until the server has given this node a range
	waited  time.Duration // for the range, since the agent started
	// pressure are the conditions of that kind that hold.
	pressure     []corev1.NodeConditionType
	shuttingDown bool
}

// pressures are the conditions of that kind, with the kubelet's words for each when it holds and when not.
var pressures = []struct {
	kind                                        corev1.NodeConditionType
	reason, message, reasonOtherwise, otherwise string
}{
	{corev1.NodeMemoryPressure, "KubeletHasInsufficientMemory", "kubelet has insufficient memory available", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"},
	{corev1.NodeDiskPressure, "KubeletHasDiskPressure", "kubelet has disk pressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"},
	{corev1.NodePIDPressure, "KubeletHasInsufficientPID", "kubelet has insufficient PID available", "KubeletHasSufficientPID", "kubelet has sufficient PID available"},
}

// conditions are the node's conditions after m. Equal inputs give equal conditions. Conditions of
// other reporters stay.
func conditions(prev []corev1.NodeCondition, m measurement, now time.Time) []corev1.NodeCondition {
	out := append([]corev1.NodeCondition(nil), prev...)
	for _, p := range pressures {
		c := corev1.NodeCondition{Type: p.kind, Status: corev1.ConditionFalse, Reason: p.reasonOtherwise, Message: p.otherwise}
		if slices.Contains(m.pressure, p.kind) {
			c.Status, c.Reason, c.Message = corev1.ConditionTrue, p.reason, p.message
		}
		out = setCondition(out, c, now)
	}
	out = setCondition(out, networkCondition(m), now)
	return setCondition(out, readyCondition(m), now)
}

// networkCondition turns into the taint node.kubernetes.io/network-unavailable, which daemons on
// the host network tolerate.
func networkCondition(m measurement) corev1.NodeCondition {
	c := corev1.NodeCondition{Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionFalse, Reason: "PodNetworkReady", Message: "pod range " + m.podCIDR + " is in use on this node"}
	if m.podCIDR == "" {
		c.Status, c.Reason = corev1.ConditionTrue, "NoPodCIDR"
		c.Message = "the server has given this node no pod range; pods on the host network run"
	}
	return c
}

func readyCondition(m measurement) corev1.NodeCondition {
	c := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionFalse, Reason: "KubeletNotReady"}
	switch {
	case m.shuttingDown:
		c.Message = "node is shutting down"
	case m.runtime != nil:
		c.Message = "container runtime is not ready: " + m.runtime.Error()
	case m.podCIDR == "" && m.waited < rangePatience:
		c.Message = "waiting for the server to give this node a pod range"
	case m.podCIDR == "":
		c.Status, c.Reason, c.Message = corev1.ConditionTrue, "KubeletReady", "ready for pods on the host network; there is no pod range for others"
	case m.network != nil:
		c.Message = "container runtime network not ready: " + m.network.Error()
	default:
		c.Status, c.Reason, c.Message = corev1.ConditionTrue, "KubeletReady", "kubelet is posting ready status"
	}
	return c
}

// setCondition replaces or appends c; the time of its last transition is kept while the status is.
func setCondition(list []corev1.NodeCondition, c corev1.NodeCondition, now time.Time) []corev1.NodeCondition {
	c.LastHeartbeatTime = metav1.NewTime(now)
	c.LastTransitionTime = metav1.NewTime(now)
	for i := range list {
		if list[i].Type != c.Type {
			continue
		}
		if list[i].Status == c.Status {
			c.LastTransitionTime = list[i].LastTransitionTime
		}
		list[i] = c
		return list
	}
	return append(list, c)
}
