package podlife

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// preempt chooses the pods that make room for a critical one: as few as possible, best-effort ones
// sooner than burstable ones and those sooner than guaranteed ones, and of two that would do the one
// that asks for less. It is the kubelet's rule:
// https://kubernetes.io/docs/tasks/administer-cluster/guaranteed-scheduling-critical-addon-pods/
func preempt(pod *corev1.Pod, others []*corev1.Pod, missing []shortage) ([]*corev1.Pod, error) {
	var want needs
	for _, s := range missing {
		want = append(want, need{s.name, s.requested - (s.capacity - s.used)})
	}
	classes := map[corev1.PodQOSClass][]*corev1.Pod{}
	for _, other := range others {
		if preemptable(pod, other) {
			classes[QOS(other)] = append(classes[QOS(other)], other)
		}
	}
	bestEffort, burstable, guaranteed := classes[corev1.PodQOSBestEffort], classes[corev1.PodQOSBurstable], classes[corev1.PodQOSGuaranteed]
	if left := want.less(bestEffort, burstable, guaranteed); len(left) > 0 {
		return nil, fmt.Errorf("preemption: error finding a set of pods to preempt: no set of running pods found to reclaim resources: %v", left)
	}
	// Each class gives only what the classes below it cannot.
	g := want.less(bestEffort, burstable).choose(guaranteed)
	b := want.less(bestEffort, g).choose(burstable)
	e := want.less(b, g).choose(bestEffort)
	return slices.Concat(e, b, g), nil
}

func preemptable(by, pod *corev1.Pod) bool {
	if Critical(by) && !Critical(pod) {
		return true
	}
	return by.Spec.Priority != nil && pod.Spec.Priority != nil && *by.Spec.Priority > *pod.Spec.Priority
}

// needs are what has yet to be freed.
type needs []need

type need struct {
	name   corev1.ResourceName
	amount int64
}

// String is as the kubelet writes it.
func (n needs) String() string {
	var b strings.Builder
	for _, x := range n {
		fmt.Fprintf(&b, "(res: %v, q: %d), ", x.name, x.amount)
	}
	return "[" + b.String() + "]"
}

// less is what is still needed if these pods go.
func (n needs) less(groups ...[]*corev1.Pod) needs {
	var left needs
	for _, x := range n {
		for _, pods := range groups {
			for _, pod := range pods {
				x.amount -= gives(pod, x.name)
			}
		}
		if x.amount > 0 {
			left = append(left, x)
		}
	}
	return left
}

func gives(pod *corev1.Pod, name corev1.ResourceName) int64 {
	if name == corev1.ResourcePods {
		return 1
	}
	return amount(name, Request(pod, name))
}

// choose takes pods until nothing is needed, each time the one that helps most.
func (n needs) choose(pods []*corev1.Pod) []*corev1.Pod {
	var chosen []*corev1.Pod
	pods = slices.Clone(pods)
	for len(n) > 0 && len(pods) > 0 {
		best := slices.IndexFunc(pods, func(p *corev1.Pod) bool {
			return !slices.ContainsFunc(pods, func(q *corev1.Pod) bool { return n.prefers(q, p) })
		})
		chosen = append(chosen, pods[best])
		n = n.less(pods[best : best+1])
		pods = slices.Delete(pods, best, best+1)
	}
	return chosen
}

// prefers tells that p leaves less to be freed than q, or costs less.
func (n needs) prefers(p, q *corev1.Pod) bool {
	if a, b := n.distance(p), n.distance(q); a != b {
		return a < b
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceMemory, corev1.ResourceCPU} {
		if a, b := gives(p, name), gives(q, name); a != b {
			return a < b
		}
	}
	return false
}

// distance is how far from enough it would be to let a pod go, each resource counted alike.
func (n needs) distance(pod *corev1.Pod) float64 {
	sum := 0.0
	for _, x := range n {
		if left := x.amount - gives(pod, x.name); left > 0 {
			share := float64(left) / float64(x.amount)
			sum += share * share
		}
	}
	return sum
}
