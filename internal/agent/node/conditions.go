package node

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/everynode/everynode/internal/agent/measure"
)

// Thresholds at which a resource counts as short, the kubelet's defaults for hard eviction; it has
// none for processes, ours leaves room to log in and look.
const (
	memoryPressureBytes  = 100 << 20
	diskPressurePercent  = 10
	inodePressurePercent = 5
	pidPressurePercent   = 5
)

// pressureHold keeps a pressure condition for a while after it was last seen, so that a node near
// its limit does not gain and lose a taint every few seconds.
const pressureHold = 5 * time.Minute

// rangePatience is how long a node waits for its pod range before it reports itself ready for
// host-network pods only (every range of the cluster is taken, say).
const rangePatience = 10 * time.Second

// measurement is everything the conditions follow from.
type measurement struct {
	runtime      error         // nil: the container runtime answers and says it is ready
	network      error         // nil: the pod network is set up and the runtime has seen it
	podCIDR      string        // "" until the server has given this node a range
	waited       time.Duration // for the range, since the agent started
	memory       uint64        // bytes available: capacity less working set
	disk         measure.FileSystem
	pids, maxPID uint64
	failed       []error // measurements that could not be made
}

// conditions are the node's conditions after m. Equal inputs give equal conditions; lastPressure
// (when each pressure was last seen) is carried between calls. Conditions of other reporters stay.
func conditions(prev []corev1.NodeCondition, m measurement, lastPressure map[corev1.NodeConditionType]time.Time, now time.Time) []corev1.NodeCondition {
	out := append([]corev1.NodeCondition(nil), prev...)
	pressure := func(kind corev1.NodeConditionType, short bool, reasonTrue, reasonFalse, messageTrue, messageFalse string) {
		if short {
			lastPressure[kind] = now
		}
		last, seen := lastPressure[kind]
		if seen && now.Sub(last) < pressureHold {
			if !short {
				messageTrue = fmt.Sprintf("was short at %s; reported for %s after that", last.UTC().Format(time.RFC3339), pressureHold)
			}
			out = setCondition(out, corev1.NodeCondition{Type: kind, Status: corev1.ConditionTrue, Reason: reasonTrue, Message: messageTrue}, now)
			return
		}
		out = setCondition(out, corev1.NodeCondition{Type: kind, Status: corev1.ConditionFalse, Reason: reasonFalse, Message: messageFalse}, now)
	}
	pressure(corev1.NodeMemoryPressure, m.memory < memoryPressureBytes,
		"KubeletHasInsufficientMemory", "KubeletHasSufficientMemory",
		fmt.Sprintf("less than %d MiB of memory are available", memoryPressureBytes>>20), "kubelet has sufficient memory available")
	pressure(corev1.NodeDiskPressure, diskShort(m.disk),
		"KubeletHasDiskPressure", "KubeletHasNoDiskPressure",
		fmt.Sprintf("less than %d%% of the bytes or %d%% of the inodes of the data directory's file system are free: remove files, images or pods there", diskPressurePercent, inodePressurePercent),
		"kubelet has no disk pressure")
	pressure(corev1.NodePIDPressure, m.maxPID > 0 && below(m.maxPID-min(m.pids, m.maxPID), m.maxPID, pidPressurePercent),
		"KubeletHasInsufficientPID", "KubeletHasSufficientPID",
		fmt.Sprintf("less than %d%% of the machine's process ids are free (kernel.pid_max, kernel.threads-max)", pidPressurePercent),
		"kubelet has sufficient PID available")
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
	case m.runtime != nil:
		c.Message = "container runtime is not ready: " + m.runtime.Error()
	case m.podCIDR == "" && m.waited < rangePatience:
		c.Message = "waiting for the server to give this node a pod range"
	case m.podCIDR == "":
		c.Status, c.Reason, c.Message = corev1.ConditionTrue, "KubeletReady", "ready for pods on the host network; there is no pod range for others"
	case m.network != nil:
		c.Message = "container runtime network not ready: " + m.network.Error()
	case len(m.failed) > 0:
		c.Message = "cannot measure this machine: " + m.failed[0].Error()
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

func diskShort(f measure.FileSystem) bool {
	// File systems like btrfs count no inodes.
	return below(f.Available, f.Capacity, diskPressurePercent) || f.Inodes > 0 && below(f.InodesFree, f.Inodes, inodePressurePercent)
}

func below(part, whole, percent uint64) bool { return part*100 < whole*percent }
