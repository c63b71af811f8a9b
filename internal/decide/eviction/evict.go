package eviction

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/everynode/everynode/internal/decide/placement"
	"github.com/everynode/everynode/internal/decide/podlife"
)

// Reason of evicted pods, and of pods that a node under pressure does not take.
const Reason = "Evicted"

// Annotations of the events of evictions.
const (
	offendingContainers = "offending_containers"
	offendingUsage      = "offending_containers_usage"
	starvedResource     = "starved_resource"
)

// immediate is the grace period of hard evictions, in seconds.
const immediate = 1

// Eviction is a pod that has to go.
type Eviction struct {
	Pod *corev1.Pod
	// Grace period in seconds.
	Grace   int64
	Message string
	// Disruption: the pod is not to blame, and its status shall say so.
	Disruption bool
	// Annotations of the event.
	Annotations map[string]string
}

// Next is the first pod in the order of Rank that may be evicted, or nil. Starved is what
// Monitor.Observe said and not empty; maxGrace bounds the grace of soft evictions, in seconds.
func (l Layout) Next(starved []Threshold, pods []Pod, o Observations, maxGrace int64) *Eviction {
	t := starved[0]
	l.Rank(t.Signal, pods)
	for _, pod := range pods {
		if podlife.Critical(pod.Pod) {
			continue
		}
		grace := int64(immediate)
		if !t.Hard() {
			grace = maxGrace
			if own := pod.Spec.TerminationGracePeriodSeconds; own != nil {
				grace = min(grace, *own)
			}
		}
		message, annotations := explain(t, pod, o)
		return &Eviction{Pod: pod.Pod, Grace: grace, Message: message, Disruption: true, Annotations: annotations}
	}
	return nil
}

// explain says what was short and which containers had more than they asked for.
func explain(t Threshold, pod Pod, o Observations) (string, map[string]string) {
	name := t.Signal.Resource()
	message := fmt.Sprintf("The node was low on resource: %v. ", name)
	if got, measured := o[t.Signal]; measured {
		message += fmt.Sprintf("Threshold quantity: %v, available: %v. ", t.Signal.quantity(t.Below.of(got.Capacity)), t.Signal.quantity(got.Available))
	}
	if pod.Usage == nil {
		return message, map[string]string{starvedResource: string(name)}
	}
	var names, amounts []string
	for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
		used, measured := pod.Usage.Containers[c.Name]
		if !measured {
			continue
		}
		var usage *resource.Quantity
		switch name {
		case corev1.ResourceMemory:
			usage = resource.NewQuantity(used.Memory, resource.BinarySI)
		case corev1.ResourceEphemeralStorage:
			usage = resource.NewQuantity(used.Root.Bytes+used.Logs.Bytes, resource.BinarySI)
		default:
			continue
		}
		request := c.Resources.Requests[name]
		if usage.Cmp(request) > 0 {
			message += fmt.Sprintf("Container %s was using %s, request is %s, has larger consumption of %v. ", c.Name, usage.String(), request.String(), name)
			names, amounts = append(names, c.Name), append(amounts, usage.String())
		}
	}
	return message, map[string]string{
		offendingContainers: strings.Join(names, ","), offendingUsage: strings.Join(amounts, ","), starvedResource: string(name),
	}
}

// Limited tells that a pod has a limit that OverLimit would look at.
func Limited(pod *corev1.Pod) bool {
	if _, has := ephemeralLimit(pod); has {
		return true
	}
	for _, c := range pod.Spec.Containers {
		if _, has := c.Resources.Limits[corev1.ResourceEphemeralStorage]; has {
			return true
		}
	}
	return slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return sizeLimit(v) != nil })
}

// sizeLimit is that of a volume on the node's disk; memory limits itself.
func sizeLimit(v corev1.Volume) *resource.Quantity {
	if e := v.EmptyDir; e != nil && e.Medium == corev1.StorageMediumDefault && e.SizeLimit != nil && e.SizeLimit.Sign() > 0 {
		return e.SizeLimit
	}
	return nil
}

// OverLimit lists the evictions of pods that have more files than they may.
func (l Layout) OverLimit(pods []Pod) []Eviction {
	var list []Eviction
	for _, pod := range pods {
		if pod.Usage == nil || podlife.Critical(pod.Pod) {
			continue
		}
		if message := l.overLimit(pod); message != "" {
			list = append(list, Eviction{Pod: pod.Pod, Grace: immediate, Message: message})
		}
	}
	return list
}

func (l Layout) overLimit(pod Pod) string {
	for _, v := range pod.Spec.Volumes {
		if limit := sizeLimit(v); limit != nil && pod.Usage.Volumes[v.Name].Bytes > limit.Value() {
			return fmt.Sprintf("Usage of EmptyDir volume %q exceeds the limit %q. ", v.Name, limit.String())
		}
	}
	if limit, has := ephemeralLimit(pod.Pod); has && pod.Usage.Ephemeral > limit.Value() {
		return fmt.Sprintf("Pod ephemeral local storage usage exceeds the total limit of containers %s. ", limit.String())
	}
	for _, name := range slices.Sorted(maps.Keys(pod.Usage.Containers)) {
		used := pod.Usage.Containers[name]
		sum := used.Logs.Bytes
		if !l.ImagesApart {
			sum += used.Root.Bytes
		}
		for _, c := range pod.Spec.Containers {
			limit := c.Resources.Limits[corev1.ResourceEphemeralStorage]
			if c.Name == name && limit.Sign() > 0 && sum > limit.Value() {
				return fmt.Sprintf("Container %s exceeded its local ephemeral storage limit %q. ", name, limit.String())
			}
		}
	}
	return ""
}

// ephemeralLimit is what all containers of a pod together may have of ephemeral storage. As with
// the kubelet, containers without a limit add nothing to it.
func ephemeralLimit(pod *corev1.Pod) (resource.Quantity, bool) {
	limits := podlife.Limits(pod)
	limit, has := limits[corev1.ResourceEphemeralStorage]
	return limit, has
}

// Refuse says why a node with these conditions does not take a pod, or nil: under memory pressure
// it takes no pod that asks for no memory, unless the pod tolerates that; under any other it takes
// none. Critical pods it always takes.
func Refuse(pod *corev1.Pod, conditions []corev1.NodeConditionType) *podlife.Verdict {
	if len(conditions) == 0 || podlife.Critical(pod) {
		return nil
	}
	memoryOnly := len(conditions) == 1 && conditions[0] == corev1.NodeMemoryPressure
	if memoryOnly && (podlife.QOS(pod) != corev1.PodQOSBestEffort || toleratesMemoryPressure(pod)) {
		return nil
	}
	return &podlife.Verdict{Reason: Reason, Message: fmt.Sprintf("The node had condition: %v. ", conditions)}
}

func toleratesMemoryPressure(pod *corev1.Pod) bool {
	taint := corev1.Taint{Key: corev1.TaintNodeMemoryPressure, Effect: corev1.TaintEffectNoSchedule}
	return slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool { return placement.Tolerates(&t, &taint) })
}
