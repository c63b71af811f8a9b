// Package shutdown decides in which order the pods of a node stop when the machine shuts down, and
// how long each may take. It is pure: internal/agent/shutdown hears of the shutdown, holds it up and
// stops the pods.
//
// It is the kubelet's graceful node shutdown, but that daemons stop last: they serve the others.
// https://kubernetes.io/docs/concepts/cluster-administration/node-shutdown/#graceful-node-shutdown
package shutdown

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/everynode/everynode/internal/decide/podlife"
)

// Period is the time of all pods of one priority and up to the next one.
type Period struct {
	Priority int32
	Seconds  int64
	// Daemons: it is the daemons' time as well, whatever their priority.
	Daemons bool
}

// Split divides a time into that of ordinary pods and that of daemons and critical pods, which comes
// last. There are none without a time.
func Split(total, critical time.Duration) []Period {
	if total == 0 {
		return nil
	}
	return []Period{
		{Priority: 0, Seconds: int64((total - critical) / time.Second)},
		{Priority: podlife.CriticalPriority, Seconds: int64(critical / time.Second), Daemons: true},
	}
}

// Validate reports times that cannot work, by the names that a configuration file has for them.
func Validate(total, critical time.Duration) error {
	switch {
	case total < 0 || total > 0 && total < time.Second:
		return fmt.Errorf("shutdownGracePeriod %v: must be a second at least, or 0 for no graceful shutdown", total)
	case critical < 0 || critical > 0 && critical < time.Second:
		return fmt.Errorf("shutdownGracePeriodCriticalPods %v: must be 0 or a second at least", critical)
	case critical > total:
		return fmt.Errorf("shutdownGracePeriodCriticalPods %v: is a part of shutdownGracePeriod, which is %v, and cannot be more", critical, total)
	}
	return nil
}

// Total is how long the machine has to wait.
func Total(periods []Period) time.Duration {
	var sum int64
	for _, p := range periods {
		sum += p.Seconds
	}
	return time.Duration(sum) * time.Second
}

// Group is a number of pods that stop together.
type Group struct {
	// Seconds that they have.
	Seconds int64
	Pods    []*corev1.Pod
}

// Groups are the pods in the order in which they stop; groups without pods are left out, and take
// no time.
func Groups(periods []Period, pods []*corev1.Pod) []Group {
	periods = slices.Clone(periods)
	slices.SortStableFunc(periods, func(a, b Period) int { return cmp.Compare(a.Priority, b.Priority) })
	groups := make([]Group, len(periods))
	for i, p := range periods {
		groups[i].Seconds = p.Seconds
	}
	for _, pod := range pods {
		if i := periodOf(periods, pod); i >= 0 {
			groups[i].Pods = append(groups[i].Pods, pod)
		}
	}
	return slices.DeleteFunc(groups, func(g Group) bool { return len(g.Pods) == 0 })
}

// periodOf is the last one whose priority the pod has; the first, if it has none's.
func periodOf(periods []Period, pod *corev1.Pod) int {
	found := min(0, len(periods)-1)
	for i, p := range periods {
		if priority(pod) >= p.Priority || p.Daemons && isDaemon(pod) {
			found = i
		}
	}
	return found
}

func priority(pod *corev1.Pod) int32 {
	if pod.Spec.Priority != nil {
		return *pod.Spec.Priority
	}
	return 0
}

func isDaemon(pod *corev1.Pod) bool {
	owner := metav1.GetControllerOf(pod)
	return owner != nil && owner.Kind == "DaemonSet" || podlife.Static(pod)
}

// Grace is how many seconds of its group's a pod may take: its own grace period, if that is less.
func (g Group) Grace(pod *corev1.Pod) int64 {
	if own := pod.Spec.TerminationGracePeriodSeconds; own != nil && *own < g.Seconds {
		return *own
	}
	return g.Seconds
}
