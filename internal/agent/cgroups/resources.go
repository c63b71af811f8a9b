package cgroups

import (
	ocgroups "github.com/opencontainers/cgroups"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"

	"github.com/everynode/everynode/internal/decide/podlife"
)

// Limits of the kernel's CPU controller, in its own units.
const (
	// Period over which a quota holds, in microseconds.
	Period    = 100_000
	minQuota  = 1000
	minShares = 2
	maxShares = 262_144
)

// Shares converts a CPU request to the controller's weight.
func Shares(milli int64) uint64 {
	return uint64(min(max(milli*1024/1000, minShares), maxShares))
}

// Quota converts a CPU limit to microseconds a Period; 0 (none) for no limit.
func Quota(milli int64) int64 {
	if milli == 0 {
		return 0
	}
	return max(milli*Period/1000, minQuota)
}

func shares(n uint64) *ocgroups.Resources {
	r := &ocgroups.Resources{SkipDevices: true, CpuShares: n}
	if ocgroups.IsCgroup2UnifiedMode() {
		r.CpuWeight = ocgroups.ConvertCPUSharesToCgroupV2Value(n)
	}
	return r
}

// resources lifts limits that an earlier start has set and this one does not.
func (l Limits) resources() *ocgroups.Resources {
	r := shares(Shares(l.CPU))
	if l.CPU == 0 {
		r = shares(1024) // the kernel's default
	}
	r.Memory = -1
	if l.Memory > 0 {
		r.Memory = l.Memory
	}
	r.PidsLimit = ptr.To[int64](-1)
	if l.PIDs > 0 {
		r.PidsLimit = &l.PIDs
	}
	return r
}

// podResources are the limits of the pod as a whole: the sums of its containers',
// where every container has one.
func podResources(pod *corev1.Pod) *ocgroups.Resources {
	class := podlife.QOS(pod)
	if class == corev1.PodQOSBestEffort {
		return shares(minShares)
	}
	cpu := podlife.Request(pod, corev1.ResourceCPU)
	r := shares(Shares(cpu.MilliValue()))
	if limit, all := podLimit(pod, corev1.ResourceCPU); all {
		r.CpuQuota, r.CpuPeriod = Quota(limit.MilliValue()), Period
	}
	if limit, all := podLimit(pod, corev1.ResourceMemory); all {
		r.Memory = limit.Value()
	}
	return r
}

// podLimit is the limit of the pod as a whole: its own, or what its containers have together.
func podLimit(pod *corev1.Pod, name corev1.ResourceName) (resource.Quantity, bool) {
	if r := pod.Spec.Resources; r != nil {
		if limit, ok := r.Limits[name]; ok {
			return limit, true
		}
	}
	return limitOf(pod, name)
}

// limitOf sums the containers' limits, and tells whether all have one.
func limitOf(pod *corev1.Pod, name corev1.ResourceName) (resource.Quantity, bool) {
	var sum, sidecars, peak resource.Quantity
	for _, c := range pod.Spec.InitContainers {
		limit, ok := c.Resources.Limits[name]
		if !ok {
			return sum, false
		}
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			sidecars.Add(limit)
			continue
		}
		limit = limit.DeepCopy()
		limit.Add(sidecars)
		if limit.Cmp(peak) > 0 {
			peak = limit
		}
	}
	for _, c := range pod.Spec.Containers {
		limit, ok := c.Resources.Limits[name]
		if !ok {
			return sum, false
		}
		sum.Add(limit)
	}
	sum.Add(sidecars)
	if peak.Cmp(sum) > 0 {
		sum = peak
	}
	sum.Add(pod.Spec.Overhead[name])
	return sum, true
}
