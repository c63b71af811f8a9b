package podlife

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Reasons of waiting and ended containers, as the kubelet's users know them.
const (
	ContainerCreating    = "ContainerCreating"
	PodInitializing      = "PodInitializing"
	CrashLoopBackOff     = "CrashLoopBackOff"
	ErrImagePull         = "ErrImagePull"
	ImagePullBackOff     = "ImagePullBackOff"
	StatusUnknown        = "ContainerStatusUnknown"
	lostContainer        = "The container could not be located when the pod was terminated"
	lostRunningContainer = "The container could not be located when the pod was deleted.  The container used to be Running"
	lostExitCode         = 137
)

// status is the pod status to report now. What others own is left as it is.
func (d *decision) status() corev1.PodStatus {
	s := *d.Pod.Status.DeepCopy()
	s.ObservedGeneration = d.Pod.Generation
	s.QOSClass = QOS(d.Pod)
	start := metav1.NewTime(d.startTime())
	s.StartTime = &start
	d.addresses(&s)
	s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses = nil, nil, nil
	if d.Rejected == nil {
		d.containerStatuses(&s)
	}
	s.AllocatedResources, s.Resources = d.podResources()
	d.settlePhase(&s)
	s.Conditions = d.conditions(&s)
	return s
}

func (d *decision) addresses(s *corev1.PodStatus) {
	if len(d.HostIPs) > 0 {
		s.HostIP, s.HostIPs = d.HostIPs[0], nil
		for _, ip := range d.HostIPs {
			s.HostIPs = append(s.HostIPs, corev1.HostIP{IP: ip})
		}
	}
	var ips []string
	switch {
	case d.Pod.Spec.HostNetwork && d.Rejected == nil:
		ips = d.HostIPs
	case d.sandbox != nil:
		ips = d.sandbox.IPs
	}
	if len(ips) > 0 {
		s.PodIP, s.PodIPs = ips[0], nil
		for _, ip := range ips {
			s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: ip})
		}
		return
	}
	s.PodIP, s.PodIPs = d.basis.PodIP, d.basis.PodIPs // remembered after the sandbox is gone
}

func (d *decision) containerStatuses(s *corev1.PodStatus) {
	for _, c := range d.specs() {
		cs := d.containerStatus(c)
		switch c.role {
		case initial, sidecar:
			s.InitContainerStatuses = append(s.InitContainerStatuses, cs)
		case regular:
			s.ContainerStatuses = append(s.ContainerStatuses, cs)
		case ephemeral:
			s.EphemeralContainerStatuses = append(s.EphemeralContainerStatuses, cs)
		}
	}
}

func (d *decision) containerStatus(c spec) corev1.ContainerStatus {
	obs, exists := d.newest(c.Name)
	var cs corev1.ContainerStatus
	if exists {
		cs = d.observed(c, obs)
	} else {
		cs = d.unobserved(c)
	}
	started := false
	if exists && c.role != initial {
		started = d.started(c, obs)
		cs.Ready = c.role != ephemeral && d.ready(c, obs)
	}
	if t := cs.State.Terminated; t != nil && t.ExitCode == 0 && c.role == initial {
		cs.Ready = true
	}
	if c.role != ephemeral {
		cs.Started = &started
	}
	cs.VolumeMounts = volumeMounts(c.Container)
	if exists && c.role != ephemeral {
		cs.AllocatedResources = c.Resources.Requests
		cs.Resources = d.resources(c, obs)
	}
	return cs
}

// observed is the status of a container of which the runtime has a record.
func (d *decision) observed(c spec, obs Container) corev1.ContainerStatus {
	cs := corev1.ContainerStatus{
		Name: c.Name, Image: obs.Image, ImageID: obs.ImageRef,
		ContainerID: publicID(obs.ID), RestartCount: int32(obs.Attempt),
	}
	old, reported := statusOf(d.basis, c)
	if attempts := d.byName[c.Name]; len(attempts) > 1 && attempts[1].State == Exited {
		cs.LastTerminationState.Terminated = terminated(attempts[1])
	} else if reported && old.ContainerID == cs.ContainerID {
		cs.LastTerminationState = old.LastTerminationState // its record is gone
	}
	switch {
	case obs.State == Unknown && reported && old.ContainerID == cs.ContainerID && old.State.Running != nil:
		cs.State = old.State
	case obs.State == Running && !d.starting(c.Name):
		cs.State.Running = &corev1.ContainerStateRunning{StartedAt: seconds(obs.Started)}
	case obs.State == Exited:
		cs.State.Terminated = terminated(obs)
		if w := d.waiting(c, obs); w != nil {
			cs.LastTerminationState, cs.State = cs.State, corev1.ContainerState{Waiting: w}
		}
	default:
		cs.State.Waiting = d.defaultWaiting()
	}
	if obs.State == Created || obs.State == Unknown && cs.State.Running == nil {
		cs.ContainerID, cs.ImageID, cs.Image = "", "", c.Image // it may yet be made anew
	}
	return cs
}

// waiting is what an ended container waits for before it runs again, or nil: an
// ended container that is about to be started at once is shown as ended.
func (d *decision) waiting(c spec, obs Container) *corev1.ContainerStateWaiting {
	if d.why != "" || !d.restarts(c, obs) {
		return nil
	}
	if at, wait := d.backoffEnd(obs); wait && !at.IsZero() {
		if w := d.failure(c, obs.Attempt); w != nil && w.Reason == runFailed {
			return w
		}
		return &corev1.ContainerStateWaiting{Reason: CrashLoopBackOff, Message: fmt.Sprintf("back-off %s restarting failed container=%s pod=%s_%s(%s)",
			delayAfter(obs), c.Name, d.Pod.Name, d.Pod.Namespace, d.Pod.UID)}
	}
	if w := d.failure(c, obs.Attempt); w != nil {
		return w
	}
	if !d.here(obs) {
		return d.defaultWaiting()
	}
	// The back-off is over and the next start under way: it keeps on waiting until then.
	if old, ok := statusOf(d.basis, c); ok && old.State.Waiting != nil && old.LastTerminationState.Terminated != nil &&
		old.LastTerminationState.Terminated.ContainerID == publicID(obs.ID) {
		return old.State.Waiting
	}
	return nil
}

// runFailed is the reason of a container that was created and could not start.
const runFailed = "RunContainerError"

// unobserved is the status of a container that the runtime does not know (yet, or any more).
func (d *decision) unobserved(c spec) corev1.ContainerStatus {
	cs := corev1.ContainerStatus{Name: c.Name, Image: c.Image}
	old, known := statusOf(d.basis, c)
	if known {
		cs.RestartCount = old.RestartCount
		cs.LastTerminationState = old.LastTerminationState
		if old.State.Terminated != nil && (d.why != "" || c.role == initial || c.role == ephemeral) {
			return *old.DeepCopy()
		}
		cs.LastTerminationState.Terminated = lastOf(old)
	}
	cs.State.Waiting = d.failure(c, 0)
	if cs.State.Waiting == nil {
		cs.State.Waiting = d.defaultWaiting()
	}
	return cs
}

// lastOf is how the container of an old report ended, as far as that is known.
func lastOf(old *corev1.ContainerStatus) *corev1.ContainerStateTerminated {
	switch {
	case old.State.Terminated != nil:
		return old.State.Terminated.DeepCopy()
	case old.LastTerminationState.Terminated != nil:
		return old.LastTerminationState.Terminated.DeepCopy()
	case old.State.Running != nil:
		return &corev1.ContainerStateTerminated{Reason: StatusUnknown, Message: lostRunningContainer, ExitCode: lostExitCode}
	}
	return nil
}

// defaultWaiting is the state of a container whose turn has not come. What keeps the whole pod from
// starting is its message, once it has done so twice: much of it passes by itself.
func (d *decision) defaultWaiting() *corev1.ContainerStateWaiting {
	w := &corev1.ContainerStateWaiting{Reason: ContainerCreating}
	if len(d.Pod.Spec.InitContainers) > 0 {
		w.Reason = PodInitializing
	}
	for _, kind := range []Kind{SetUpVolumes, RunSandbox} {
		if f := d.Failures[Step{Kind: kind}.Key()]; f.Reason != "" && f.Count > 1 {
			w.Message = f.Message
			break
		}
	}
	return w
}

// failure is why the container could not be started since attempt newest.
func (d *decision) failure(c spec, newest uint32) *corev1.ContainerStateWaiting {
	if f, ok := d.Failures[(Step{Kind: EnsureImage, Container: c.Name, Image: c.Image}).Key()]; ok && f.Reason != "" {
		return d.imageFailure(c, f)
	}
	if f, ok := d.Failures[(Step{Kind: StartContainer, Container: c.Name}).Key()]; ok && f.Reason != "" && f.Attempt >= newest {
		return &corev1.ContainerStateWaiting{Reason: f.Reason, Message: f.Message}
	}
	if f, ok := d.Failures[(Step{Kind: SetUpVolumes}).Key()]; ok && f.Reason != "" && f.Reason != string(SetUpVolumes) {
		return &corev1.ContainerStateWaiting{Reason: f.Reason, Message: f.Message} // an image volume has no image
	}
	return nil
}

// imageFailure shows a failed pull as such for a moment, and then as a back-off.
func (d *decision) imageFailure(c spec, f Failure) *corev1.ContainerStateWaiting {
	shown := f.At.Add(min(retryAt(EnsureImage, f).Sub(f.At)/2, 10*time.Second))
	if f.Reason != ErrImagePull || d.now.Before(shown) || d.inFlight(Step{Kind: EnsureImage, Container: c.Name, Image: c.Image}) {
		if f.Reason == ErrImagePull && d.now.Before(shown) {
			d.wake(shown)
		}
		return &corev1.ContainerStateWaiting{Reason: f.Reason, Message: f.Message}
	}
	return &corev1.ContainerStateWaiting{Reason: ImagePullBackOff, Message: fmt.Sprintf("Back-off pulling image %q: %s: %s", c.Image, f.Reason, f.Message)}
}

// seconds is the precision of times in the API.
func seconds(t time.Time) metav1.Time { return metav1.NewTime(t.Truncate(time.Second)) }

func terminated(c Container) *corev1.ContainerStateTerminated {
	return &corev1.ContainerStateTerminated{
		ExitCode: c.ExitCode, Reason: c.Reason, Message: c.Message, ContainerID: publicID(c.ID),
		StartedAt: seconds(c.Started), FinishedAt: seconds(c.Finished),
	}
}

func volumeMounts(c *corev1.Container) []corev1.VolumeMountStatus {
	var list []corev1.VolumeMountStatus
	for _, m := range c.VolumeMounts {
		s := corev1.VolumeMountStatus{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly}
		if m.ReadOnly {
			disabled := corev1.RecursiveReadOnlyDisabled
			s.RecursiveReadOnly = &disabled
		}
		list = append(list, s)
	}
	return list
}
