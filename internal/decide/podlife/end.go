package podlife

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// ending says why the pod shall not run (any more), or "".
func (d *decision) ending() string {
	switch {
	case d.Gone:
		return "the pod is gone from the API"
	case d.Pod.DeletionTimestamp != nil:
		return "the pod is being deleted"
	case d.Rejected != nil:
		return d.Rejected.Message
	case d.Evicted != nil:
		return d.Evicted.Message
	case terminal(d.Pod.Status.Phase), terminal(d.basis.Phase):
		return "the pod has ended"
	case d.expired():
		return deadlineMessage
	case d.initFailed():
		return "an init container has failed and is not restarted"
	case d.allOver():
		return "all containers have ended"
	}
	return ""
}

func terminal(p corev1.PodPhase) bool { return p == corev1.PodSucceeded || p == corev1.PodFailed }

const (
	deadlineReason  = "DeadlineExceeded"
	deadlineMessage = "Pod was active on the node longer than the specified deadline"
)

// deadline is when the pod's activeDeadlineSeconds are over.
func (d *decision) deadline() (time.Time, bool) {
	s := d.Pod.Spec.ActiveDeadlineSeconds
	if s == nil {
		return time.Time{}, false
	}
	return d.startTime().Add(time.Duration(*s) * time.Second), true
}

func (d *decision) expired() bool {
	at, ok := d.deadline()
	return ok && !d.now.Before(at)
}

// initFailed: an init container ended badly for good, so the others never start.
func (d *decision) initFailed() bool {
	for _, c := range d.specs() {
		if c.role != initial {
			continue
		}
		obs, ok := d.newest(c.Name)
		if ok && obs.State == Exited && obs.ExitCode != 0 && !d.restarts(c, obs) {
			return true
		}
	}
	return false
}

// allOver: every container proper has run, ended, and will not run again.
func (d *decision) allOver() bool {
	for i := range d.Pod.Spec.Containers {
		c := spec{&d.Pod.Spec.Containers[i], regular}
		obs, ok := d.newest(c.Name)
		if !ok || obs.State != Exited || d.starting(c.Name) || d.restarts(c, obs) {
			return false
		}
	}
	return true
}

// end decides the steps of a pod that goes, one stage after the other: each stage
// begins when nothing is left to do in the one before.
func (d *decision) end(why string) {
	switch {
	case d.stopContainers(why):
	case d.anyInFlight(RunSandbox, StartContainer, EnsureImage, SetUpVolumes):
		// What they bring forth has to be taken away too.
	case d.stopSandboxes(why):
	case !d.TornDown:
		d.do(Step{Kind: TearDown, Why: why})
	case d.Gone:
		d.removeAll()
	case d.Pod.DeletionTimestamp != nil:
		d.do(Step{Kind: DeletePod, Why: "nothing of the deleted pod runs any more"})
	default:
		d.collect(d.recordsAfterwards())
	}
	d.probeWhileEnding()
}

// stopContainers stops containers, then sidecars in reverse order, and tells
// whether any is still alive.
func (d *decision) stopContainers(why string) bool {
	alive := false
	grace := d.endGrace()
	sidecars := []Container{}
	for _, c := range d.Containers {
		if !c.live() {
			continue
		}
		if d.isSidecar(c.Name) {
			sidecars = append(sidecars, c)
			continue
		}
		alive = true
		d.stop(c, grace, true, "Stopping container "+c.Name)
	}
	for _, c := range sidecars {
		alive = true
		d.preStop(c, grace)
	}
	if last := d.lastOf(sidecars); last != nil && !d.otherAlive(sidecars) && !d.hooking(*last, grace) {
		d.stop(*last, grace, false, "Stopping container "+last.Name)
	}
	return alive
}

// preStop runs a sidecar's hook at once, however long the sidecar then waits.
func (d *decision) preStop(c Container, grace int64) {
	for _, s := range d.specs() {
		if s.Name == c.Name && s.Lifecycle != nil && s.Lifecycle.PreStop != nil && !d.Hooked[c.ID] && !d.stopping(c.ID) && d.left(grace) > 0 {
			d.do(Step{Kind: PreStop, ID: c.ID, Container: c.Name, Grace: d.left(grace), Why: "Stopping container " + c.Name})
		}
	}
}

// stopping: the container's stop is under way, and its hook with it.
func (d *decision) stopping(id string) bool {
	for _, s := range d.InFlight {
		if s.Kind == StopContainer && s.ID == id {
			return true
		}
	}
	return false
}

// hooking: the hook of a container whose turn it is may go on for a while.
func (d *decision) hooking(c Container, grace int64) bool {
	step := Step{Kind: PreStop, ID: c.ID}
	if !d.inFlight(step) && !d.planned(PreStop, c.ID) {
		return false
	}
	if d.left(grace) == 0 {
		return false
	}
	d.wake(d.endingSince().Add(time.Duration(grace) * time.Second))
	return true
}

// otherAlive: something beside the sidecars has yet to end.
func (d *decision) otherAlive(sidecars []Container) bool {
	for _, c := range d.Containers {
		if c.live() && !slices.ContainsFunc(sidecars, func(s Container) bool { return s.ID == c.ID }) {
			return true
		}
	}
	return false
}

// left is what remains of the grace period, in seconds.
func (d *decision) left(grace int64) int64 {
	return max(grace-int64(d.now.Sub(d.endingSince())/time.Second), 0)
}

func (d *decision) endingSince() time.Time {
	if d.EndingSince.IsZero() {
		return d.now
	}
	return d.EndingSince
}

func (d *decision) isSidecar(name string) bool {
	for _, c := range d.specs() {
		if c.Name == name {
			return c.role == sidecar
		}
	}
	return false
}

// lastOf is the sidecar that stands last in the spec, or nil.
func (d *decision) lastOf(sidecars []Container) *Container {
	specs := d.specs()
	for i := len(specs) - 1; i >= 0; i-- {
		for j := range sidecars {
			if sidecars[j].Name == specs[i].Name {
				return &sidecars[j]
			}
		}
	}
	return nil
}

// endGrace is the grace period of the whole end, in seconds. A pod that vanished
// without one (a forced deletion) still gets a second to close its files.
func (d *decision) endGrace() int64 {
	grace := d.specGrace()
	if g := d.Pod.DeletionGracePeriodSeconds; g != nil && (d.Gone || d.Pod.DeletionTimestamp != nil) {
		grace = max(*g, 1)
	}
	if d.Evicted != nil && d.Evicted.Grace != nil {
		grace = min(grace, max(*d.Evicted.Grace, 1))
	}
	return grace
}

// stopSandboxes tells whether any sandbox is still ready.
func (d *decision) stopSandboxes(why string) bool {
	ready := false
	for _, s := range d.Sandboxes {
		if s.Ready {
			ready = true
			d.do(Step{Kind: StopSandbox, ID: s.ID, Why: why})
		}
	}
	return ready
}

// removeAll removes the sandboxes, and with them containers and their records.
func (d *decision) removeAll() {
	for _, s := range d.Sandboxes {
		d.do(Step{Kind: RemoveSandbox, ID: s.ID, Why: "the pod is gone"})
	}
	if len(d.Sandboxes) == 0 {
		for _, c := range d.Containers { // their sandbox was removed under them
			d.do(Step{Kind: RemoveContainer, ID: c.ID, Container: c.Name, Why: "the pod is gone"})
		}
	}
	d.plan.Done = len(d.Sandboxes) == 0 && len(d.Containers) == 0 && len(d.InFlight) == 0
}

// probeWhileEnding keeps readiness known until the containers have stopped.
func (d *decision) probeWhileEnding() {
	if !d.Gone {
		d.probe()
	}
}
