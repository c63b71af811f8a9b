package podlife

import corev1 "k8s.io/api/core/v1"

// A container whose exit matches a rule RestartAllContainers takes the whole pod back to
// its beginning, in the same sandbox: whatever was created before that exit is ended,
// init containers included, and started anew in order. The records of the two newest
// attempts of each container are enough to tell how far that is, after a restart of
// the agent too.
// https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-all-containers

// findReset sets reset to the last such exit in the sandbox in use.
func (d *decision) findReset() {
	for _, c := range d.specs() {
		for _, obs := range d.byName[c.Name] {
			if d.resets(c, obs) && obs.Finished.After(d.reset) {
				d.reset = obs.Finished
			}
		}
	}
}

// resets: the container's end has begun, or begins, a restart of all.
func (d *decision) resets(c spec, obs Container) bool {
	if obs.State != Exited || !d.here(obs) || d.Again[obs.ID] != No {
		return false
	}
	action, ok := ruleFor(c.Container, obs.ExitCode)
	return ok && action == corev1.ContainerRestartRuleActionRestartAllContainers
}

// outdated: the container is from before the restart of all.
func (d *decision) outdated(c spec, obs Container) bool {
	return c.role != ephemeral && !d.reset.IsZero() && d.here(obs) && obs.Created.Before(d.reset)
}

// killOutdated ends what has to start anew, and tells whether any of it is alive.
func (d *decision) killOutdated() bool {
	alive := false
	for _, c := range d.specs() {
		if obs, ok := d.newest(c.Name); ok && obs.live() && d.outdated(c, obs) {
			alive = true
			d.again(obs, 0, false, AtOnce, "All containers of the pod are restarted")
		}
	}
	return alive
}

// restartingAll is the condition of a pod that has such a rule.
func (d *decision) restartingAll(s *corev1.PodStatus) []corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.AllContainersRestarting, Status: corev1.ConditionFalse}
	switch {
	case !hasResetRule(&d.Pod.Spec):
		return nil
	case s.Phase == corev1.PodSucceeded:
		c.Reason = podCompleted
	case s.Phase == corev1.PodFailed:
		c.Reason = podFailed
	default:
		for _, spec := range d.specs() {
			if obs, ok := d.newest(spec.Name); ok && d.outdated(spec, obs) {
				c.Status, c.Reason, c.Message = corev1.ConditionTrue, "RestartAllContainersStarted", "container exited with restart policy rule"
			}
		}
	}
	return []corev1.PodCondition{c}
}

func hasResetRule(pod *corev1.PodSpec) bool {
	for _, list := range [][]corev1.Container{pod.InitContainers, pod.Containers} {
		for i := range list {
			for _, rule := range list[i].RestartPolicyRules {
				if rule.Action == corev1.ContainerRestartRuleActionRestartAllContainers {
					return true
				}
			}
		}
	}
	return false
}

// ruleFor is what the first rule that matches the exit code asks for.
func ruleFor(c *corev1.Container, exitCode int32) (corev1.ContainerRestartRuleAction, bool) {
	for _, rule := range c.RestartPolicyRules {
		if matchesExit(rule.ExitCodes, exitCode) {
			return rule.Action, true
		}
	}
	return "", false
}
