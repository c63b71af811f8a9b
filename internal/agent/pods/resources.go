package pods

import (
	"bufio"
	"fmt"
	"os"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/everynode/everynode/internal/agent/cgroups"
	"github.com/everynode/everynode/internal/decide/podlife"
)

// The kernel's view of who goes first when memory runs out:
// https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/#node-out-of-memory-behavior
const (
	guaranteedScore = -997
	// nodeCritical is the priority class of pods that are as guaranteed ones.
	nodeCritical    = "system-node-critical"
	bestEffortScore = 1000
)

// resources are a container's limits in the runtime's units.
func resources(pod *corev1.Pod, c *corev1.Container, memoryCapacity int64) *runtimeapi.LinuxContainerResources {
	r := podlife.Effective(&pod.Spec, c)
	cpu, asked := r.Requests[corev1.ResourceCPU]
	if !asked {
		cpu = *r.Limits.Cpu()
	}
	return &runtimeapi.LinuxContainerResources{
		CpuShares:          int64(cgroups.Shares(cpu.MilliValue())),
		CpuQuota:           cgroups.Quota(r.Limits.Cpu().MilliValue()),
		CpuPeriod:          cgroups.Period,
		MemoryLimitInBytes: r.Limits.Memory().Value(),
		OomScoreAdj:        oomScore(pod, c, memoryCapacity),
	}
}

func oomScore(pod *corev1.Pod, c *corev1.Container, memoryCapacity int64) int64 {
	switch class := podlife.QOS(pod); {
	case podlife.Critical(pod) && pod.Spec.PriorityClassName == nodeCritical, class == corev1.PodQOSGuaranteed:
		return guaranteedScore
	case class == corev1.PodQOSBestEffort || memoryCapacity <= 0:
		return bestEffortScore
	}
	score := 1000 - 1000*countedMemory(pod, c)/memoryCapacity
	return min(max(score, 1000+guaranteedScore), bestEffortScore-1)
}

// countedMemory is the memory request by which a container's score is reckoned: its
// own with its share of what the pod asks for beyond its containers. A sidecar has
// at least as much as the least of the containers it serves, so as not to go first.
func countedMemory(pod *corev1.Pod, c *corev1.Container) int64 {
	request := memoryRequest(c)
	sidecar := c.RestartPolicy != nil && slices.ContainsFunc(pod.Spec.InitContainers, func(i corev1.Container) bool { return i.Name == c.Name })
	if sidecar && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
		least := memoryRequest(&pod.Spec.Containers[0])
		for i := range pod.Spec.Containers {
			least = min(least, memoryRequest(&pod.Spec.Containers[i]))
		}
		request = max(request, least)
	}
	if r := pod.Spec.Resources; r != nil && !r.Requests.Memory().IsZero() {
		own := resourcehelper.AggregateContainerRequests(pod, resourcehelper.PodResourcesOptions{})
		request += (r.Requests.Memory().Value() - own.Memory().Value()) / int64(len(pod.Spec.Containers)+len(pod.Spec.InitContainers))
	}
	return request
}

func memoryRequest(c *corev1.Container) int64 { return c.Resources.Requests.Memory().Value() }

// memoryCapacity is the machine's memory in bytes, or 0 if it cannot be read.
func memoryCapacity() int64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var kib int64
		if _, err := fmt.Sscanf(s.Text(), "MemTotal: %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	return 0
}
