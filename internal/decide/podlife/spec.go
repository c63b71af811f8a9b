package podlife

import corev1 "k8s.io/api/core/v1"

// role of a container in its pod.
type role int

const (
	initial   role = iota // an init container that has to complete
	sidecar               // an init container with restartPolicy Always
	regular               // a container
	ephemeral             // a debug container, added later
)

// spec is a container as the pod asks for it, whatever list it stands in.
type spec struct {
	*corev1.Container
	role role
}

// specs are all containers of the pod in the order in which they start.
func (d *decision) specs() []spec {
	s := &d.Pod.Spec
	all := make([]spec, 0, len(s.InitContainers)+len(s.Containers)+len(s.EphemeralContainers))
	for i := range s.InitContainers {
		all = append(all, spec{&s.InitContainers[i], initRole(&s.InitContainers[i])})
	}
	for i := range s.Containers {
		all = append(all, spec{&s.Containers[i], regular})
	}
	for i := range s.EphemeralContainers {
		c := corev1.Container(s.EphemeralContainers[i].EphemeralContainerCommon)
		all = append(all, spec{&c, ephemeral})
	}
	return all
}

func initRole(c *corev1.Container) role {
	if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
		return sidecar
	}
	return initial
}

// restarts: the container, which is not alive, shall run (again).
func (d *decision) restarts(c spec, obs Container) bool {
	switch {
	case c.role == ephemeral:
		return obs.State == Created
	case obs.State != Exited:
		return true
	case c.role == initial && !d.here(obs):
		return true // a new sandbox is initialized anew
	case d.outdated(c, obs), d.comesAgain(c, obs):
		return true
	case c.role == initial && obs.ExitCode == 0:
		return false
	}
	return wantsRestart(&d.Pod.Spec, c.Container, obs.ExitCode)
}

// wantsRestart applies the restart rules and policies to an exit code:
// https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#container-restart-rules
func wantsRestart(pod *corev1.PodSpec, c *corev1.Container, exitCode int32) bool {
	policy := string(pod.RestartPolicy)
	if c.RestartPolicy != nil {
		if action, ok := ruleFor(c, exitCode); ok && action == corev1.ContainerRestartRuleActionRestart {
			return true
		}
		policy = string(*c.RestartPolicy)
	}
	switch policy {
	case string(corev1.RestartPolicyNever):
		return false
	case string(corev1.RestartPolicyOnFailure):
		return exitCode != 0
	}
	return true
}

// comesAgain: the container was stopped in order to be started again.
func (d *decision) comesAgain(c spec, obs Container) bool {
	return d.Again[obs.ID] != No && !never(&d.Pod.Spec, c.Container)
}

// never: the container runs once, whatever its exit code.
func never(pod *corev1.PodSpec, c *corev1.Container) bool {
	return !wantsRestart(pod, c, 1) && !wantsRestart(pod, c, 0)
}

func matchesExit(r *corev1.ContainerRestartRuleOnExitCodes, code int32) bool {
	if r == nil {
		return false
	}
	in := false
	for _, v := range r.Values {
		in = in || v == code
	}
	return in == (r.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn)
}

// started: the container runs, its start is complete and its startup probe, if it
// has one, has succeeded.
func (d *decision) started(c spec, obs Container) bool {
	if obs.State != Running || d.starting(c.Name) {
		return false
	}
	if p, ok := d.Probes[obs.ID]; ok {
		return p.Started
	}
	if c.StartupProbe == nil {
		return true
	}
	old, ok := statusOf(d.basis, c)
	return ok && old.ContainerID == publicID(obs.ID) && old.Started != nil && *old.Started
}

// ready: the container is started and its readiness probe, if any, succeeds.
// Until a restarted agent has probed anew, the last report stands.
func (d *decision) ready(c spec, obs Container) bool {
	if !d.started(c, obs) {
		return false
	}
	if c.ReadinessProbe == nil {
		return true
	}
	if p, ok := d.Probes[obs.ID]; ok {
		return p.Ready
	}
	old, ok := statusOf(d.basis, c)
	return ok && old.ContainerID == publicID(obs.ID) && old.Ready
}

// publicID is a container's ID as the API shows it.
func publicID(id string) string { return "containerd://" + id }

// statusOf finds a container's entry in a pod status.
func statusOf(s *corev1.PodStatus, c spec) (*corev1.ContainerStatus, bool) {
	list := s.ContainerStatuses
	switch c.role {
	case initial, sidecar:
		list = s.InitContainerStatuses
	case ephemeral:
		list = s.EphemeralContainerStatuses
	}
	for i := range list {
		if list[i].Name == c.Name {
			return &list[i], true
		}
	}
	return nil, false
}
