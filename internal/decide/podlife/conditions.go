package podlife

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Reasons of pod conditions, as the kubelet gives them.
const (
	podCompleted             = "PodCompleted"
	podFailed                = "PodFailed"
	containersNotReady       = "ContainersNotReady"
	containersNotInitialized = "ContainersNotInitialized"
	readinessGatesNotReady   = "ReadinessGatesNotReady"
	unknownStatuses          = "UnknownContainerStatuses"
)

// owned are the conditions that the node decides, in the order it reports them.
var owned = []corev1.PodConditionType{
	corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady, corev1.PodScheduled,
	corev1.PodResizePending, corev1.PodResizeInProgress, corev1.AllContainersRestarting,
}

// conditions are those of others as they are, followed by the node's own.
func (d *decision) conditions(s *corev1.PodStatus) []corev1.PodCondition {
	var list []corev1.PodCondition
	for _, c := range d.Pod.Status.Conditions {
		if !isOwned(c.Type) {
			list = append(list, c)
		}
	}
	list = d.disruption(list)
	containersReady := d.containersReady(s)
	own := []corev1.PodCondition{
		d.readyToStart(), d.initialized(s), d.podReady(containersReady), containersReady,
		{Type: corev1.PodScheduled, Status: corev1.ConditionTrue},
	}
	own = append(own, d.resizeConditions()...)
	for _, c := range append(own, d.restartingAll(s)...) {
		list = append(list, d.stamp(c))
	}
	return list
}

// disruption adds that the node, and not the pod, is to blame for the pod's end.
func (d *decision) disruption(list []corev1.PodCondition) []corev1.PodCondition {
	if d.Evicted == nil || d.Evicted.Disruption == "" {
		return list
	}
	list = slices.DeleteFunc(list, func(c corev1.PodCondition) bool { return c.Type == corev1.DisruptionTarget })
	return append(list, d.stamp(corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonTerminationByKubelet, Message: d.Evicted.Disruption,
	}))
}

func isOwned(t corev1.PodConditionType) bool {
	for _, o := range owned {
		if o == t {
			return true
		}
	}
	return false
}

// stamp dates a condition: the time changes only with the status.
func (d *decision) stamp(c corev1.PodCondition) corev1.PodCondition {
	c.ObservedGeneration = d.Pod.Generation
	c.LastTransitionTime = metav1.NewTime(d.now.Truncate(1e9))
	for _, old := range d.basis.Conditions {
		if old.Type == c.Type && old.Status == c.Status && !old.LastTransitionTime.IsZero() {
			c.LastTransitionTime = old.LastTransitionTime
			c.LastProbeTime = old.LastProbeTime
		}
	}
	return c
}

func (d *decision) readyToStart() corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionFalse}
	if d.sandbox != nil && d.Rejected == nil {
		c.Status = corev1.ConditionTrue
	}
	return c
}

func (d *decision) initialized(s *corev1.PodStatus) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.PodInitialized, Status: corev1.ConditionTrue}
	if s.Phase == corev1.PodSucceeded {
		c.Reason = podCompleted
		return c
	}
	for _, cs := range s.ContainerStatuses {
		if cs.State.Running != nil || cs.State.Terminated != nil && cs.ContainerID != "" {
			return c // a container proper has started, so initialization is over
		}
	}
	if len(d.Pod.Spec.InitContainers) > 0 && len(s.InitContainerStatuses) == 0 {
		c.Status, c.Reason = corev1.ConditionFalse, unknownStatuses
		return c
	}
	var incomplete []string
	for i, cs := range s.InitContainerStatuses {
		done := cs.Ready
		if initRole(&d.Pod.Spec.InitContainers[i]) == sidecar {
			done = cs.Started != nil && *cs.Started
		}
		if !done {
			incomplete = append(incomplete, cs.Name)
		}
	}
	if len(incomplete) > 0 {
		c.Status, c.Reason = corev1.ConditionFalse, containersNotInitialized
		c.Message = fmt.Sprintf("containers with incomplete status: %s", incomplete)
	}
	return c
}

func (d *decision) containersReady(s *corev1.PodStatus) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.ContainersReady, Status: corev1.ConditionFalse}
	switch {
	case s.Phase == corev1.PodSucceeded:
		c.Reason = podCompleted
		return c
	case s.Phase == corev1.PodFailed:
		c.Reason = podFailed
		return c
	}
	var unready []string
	for i, cs := range s.InitContainerStatuses {
		if initRole(&d.Pod.Spec.InitContainers[i]) == sidecar && !cs.Ready {
			unready = append(unready, cs.Name)
		}
	}
	for _, cs := range s.ContainerStatuses {
		if !cs.Ready {
			unready = append(unready, cs.Name)
		}
	}
	if len(unready) > 0 {
		c.Reason, c.Message = containersNotReady, fmt.Sprintf("containers with unready status: %s", unready)
		return c
	}
	c.Status = corev1.ConditionTrue
	return c
}

// podReady is ContainersReady and all readiness gates:
// https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-readiness-gate
func (d *decision) podReady(containers corev1.PodCondition) corev1.PodCondition {
	c := containers
	c.Type = corev1.PodReady
	if c.Status != corev1.ConditionTrue {
		return c
	}
	var open []string
	for _, gate := range d.Pod.Spec.ReadinessGates {
		if m := gateMessage(d.Pod.Status.Conditions, gate.ConditionType); m != "" {
			open = append(open, m)
		}
	}
	if len(open) > 0 {
		c.Status, c.Reason, c.Message = corev1.ConditionFalse, readinessGatesNotReady, strings.Join(open, ", ")
	}
	return c
}

func gateMessage(list []corev1.PodCondition, gate corev1.PodConditionType) string {
	for _, c := range list {
		switch {
		case c.Type != gate:
		case c.Status == corev1.ConditionTrue:
			return ""
		default:
			return fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v", gate, c.Status)
		}
	}
	return fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", gate)
}
