package podlife

import (
	corev1 "k8s.io/api/core/v1"
)

// settlePhase sets phase, reason and message. A pod never leaves a terminal phase.
func (d *decision) settlePhase(s *corev1.PodStatus) {
	s.Phase = d.phase(s)
	if d.over() {
		d.close(s)
	}
	switch {
	case terminal(d.Pod.Status.Phase):
		s.Phase, s.Reason, s.Message = d.Pod.Status.Phase, d.Pod.Status.Reason, d.Pod.Status.Message
	case terminal(d.basis.Phase):
		s.Phase, s.Reason, s.Message = d.basis.Phase, d.basis.Reason, d.basis.Message
	case d.Rejected != nil:
		s.Phase, s.Reason, s.Message = corev1.PodFailed, d.Rejected.Reason, "Pod was rejected: "+d.Rejected.Message
	case d.Evicted != nil && d.Pod.DeletionTimestamp == nil && d.over():
		// Not sooner: who replaces failed pods would start the next beside one that still runs.
		if s.Phase != corev1.PodSucceeded || !d.Evicted.MaySucceed || d.Pod.Spec.RestartPolicy == corev1.RestartPolicyAlways {
			s.Phase = corev1.PodFailed
		}
		s.Reason, s.Message = d.Evicted.Reason, d.Evicted.Message
	case d.expired() && d.Pod.DeletionTimestamp == nil:
		s.Phase, s.Reason, s.Message = corev1.PodFailed, deadlineReason, deadlineMessage
	}
}

// over: the pod is going, and nothing of it runs or is about to.
func (d *decision) over() bool {
	return d.why != "" && !d.anyLive() && !d.anyInFlight(RunSandbox, StartContainer)
}

// close gives an ended pod its last word: containers that left no record are
// lost, and a pod whose containers did not all succeed has failed.
func (d *decision) close(s *corev1.PodStatus) {
	lost := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: StatusUnknown, Message: lostContainer, ExitCode: lostExitCode}}
	if d.wasInitialized() {
		for i := range s.ContainerStatuses {
			if s.ContainerStatuses[i].State.Terminated == nil {
				s.ContainerStatuses[i].State = lost
			}
		}
	}
	for i := range begun(s.InitContainerStatuses) {
		if s.InitContainerStatuses[i].State.Terminated == nil {
			s.InitContainerStatuses[i].State = lost
		}
	}
	if !terminal(s.Phase) {
		s.Phase = corev1.PodFailed
		if len(s.ContainerStatuses) > 0 && allSucceeded(s.ContainerStatuses) {
			s.Phase = corev1.PodSucceeded
		}
	}
}

func allSucceeded(list []corev1.ContainerStatus) bool {
	for _, c := range list {
		if t := c.State.Terminated; t == nil || t.ExitCode != 0 {
			return false
		}
	}
	return true
}

// begun leaves out the last init containers, which show no sign of a start.
func begun(list []corev1.ContainerStatus) []corev1.ContainerStatus {
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].State.Waiting == nil || list[i].LastTerminationState.Terminated != nil {
			return list[:i+1]
		}
	}
	return list[:min(len(list), 1)]
}

// wasInitialized: all init containers have done their work at some time.
func (d *decision) wasInitialized() bool {
	if len(d.Pod.Spec.InitContainers) == 0 {
		return true
	}
	for _, c := range d.basis.Conditions {
		if c.Type == corev1.PodInitialized {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// tally counts containers by where they are in their lives, for the phase.
type tally struct {
	pendingInit, pendingSidecars, failedInit    int
	running, waiting, stopped, final, succeeded int
}

// phase follows https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-phase
func (d *decision) phase(s *corev1.PodStatus) corev1.PodPhase {
	var t tally
	for _, c := range d.specs() {
		if cs, ok := statusOf(s, c); ok {
			t.add(d, c, cs)
		}
	}
	switch {
	case t.failedInit > 0:
		return corev1.PodFailed
	case t.pendingInit > 0, t.pendingSidecars > 0 && !d.regularBegun(), t.waiting > 0:
		return corev1.PodPending
	case t.running > 0:
		return corev1.PodRunning
	case t.stopped == 0:
		return corev1.PodPending
	case t.stopped != t.final && d.why == "":
		return corev1.PodRunning // some are about to run again
	case t.stopped == t.succeeded:
		return corev1.PodSucceeded
	}
	return corev1.PodFailed
}

func (t *tally) add(d *decision, c spec, cs *corev1.ContainerStatus) {
	ended := cs.State.Terminated
	if ended == nil && cs.State.Running == nil {
		ended = cs.LastTerminationState.Terminated
	}
	switch c.role {
	case initial:
		switch {
		case ended == nil:
			t.pendingInit++
		case ended.ExitCode != 0 && !d.comesBack(c, ended.ExitCode):
			t.failedInit++
		case ended.ExitCode != 0:
			t.pendingInit++
		}
	case sidecar:
		switch {
		case cs.State.Running != nil:
			t.running++
			if cs.Started == nil || !*cs.Started {
				t.pendingSidecars++
			}
		case ended == nil:
			t.pendingSidecars++
			t.waiting++
		}
	case regular:
		switch {
		case cs.State.Running != nil:
			t.running++
		case ended == nil:
			t.waiting++
		default:
			t.stopped++
			if !d.comesBack(c, ended.ExitCode) {
				t.final++
			}
			if ended.ExitCode == 0 {
				t.succeeded++
			}
		}
	}
}

// comesBack: the container, which ended with this code, runs again.
func (d *decision) comesBack(c spec, exitCode int32) bool {
	obs, ok := d.newest(c.Name)
	return wantsRestart(&d.Pod.Spec, c.Container, exitCode) || ok && (d.comesAgain(c, obs) || d.outdated(c, obs))
}
