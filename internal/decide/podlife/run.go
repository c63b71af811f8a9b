package podlife

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// run decides the steps of a pod that shall run.
func (d *decision) run() {
	if !d.VolumesReady {
		d.do(Step{Kind: SetUpVolumes, Why: "volumes are not ready"})
	}
	d.dropSandboxes()
	if d.sandbox == nil {
		d.makeSandbox()
	}
	if !d.killOutdated() {
		d.restartUnwell()
		d.resize()
		d.startContainers()
	}
	d.collect(d.recordsWhileRunning())
	d.probe()
	if at, ok := d.deadline(); ok {
		d.wake(at)
	}
}

// dropSandboxes stops ready sandboxes beside the chosen one, and removes stopped
// ones that hold no container whose record is still needed.
func (d *decision) dropSandboxes() {
	for i := range d.Sandboxes {
		s := &d.Sandboxes[i]
		switch {
		case d.sandbox != nil && s.ID == d.sandbox.ID:
		case s.Ready:
			d.do(Step{Kind: StopSandbox, ID: s.ID, Why: "a newer sandbox of this pod is ready"})
		case d.sandbox != nil && !d.holdsRecords(s.ID):
			d.do(Step{Kind: RemoveSandbox, ID: s.ID, Why: "it has been replaced"})
		}
	}
}

// holdsRecords: a container in the sandbox is alive, or among the two newest
// attempts, which status and logs still need.
func (d *decision) holdsRecords(sandboxID string) bool {
	for _, attempts := range d.byName {
		for i, c := range attempts {
			if c.SandboxID == sandboxID && (i < 2 || c.live()) {
				return true
			}
		}
	}
	return false
}

// sandboxPace is the least time between a sandbox and its successor.
const sandboxPace = time.Second

// makeSandbox runs the first sandbox, or the next one after the last has died
// (a reboot, or its process was killed). What still runs in dead ones is stopped
// first, for it has lost its network.
func (d *decision) makeSandbox() {
	waiting := false
	for _, c := range d.Containers {
		if c.live() {
			waiting = true
			d.stop(c, d.specGrace(), true, "Pod sandbox changed, it will be killed and re-created.")
		}
	}
	if waiting || d.NetworkError != "" && !d.Pod.Spec.HostNetwork {
		return
	}
	step := Step{Kind: RunSandbox, Why: "the pod has no sandbox"}
	if len(d.Sandboxes) > 0 {
		// One that dies as soon as it is made must not be made as fast as the machine can.
		if age := d.now.Sub(d.Sandboxes[0].Created); age >= 0 && age < sandboxPace {
			d.wake(d.Sandboxes[0].Created.Add(sandboxPace))
			return
		}
		step.Attempt = d.Sandboxes[0].Attempt + 1
		step.Why = "the pod's sandbox is no longer ready"
	}
	d.do(step)
}

// restartUnwell stops containers that failed their probes, that run another image
// than the spec asks for now, or that the runtime has lost track of. They are started anew
// when they have exited.
func (d *decision) restartUnwell() {
	if d.sandbox == nil {
		return
	}
	for _, c := range d.specs() {
		obs, ok := d.newest(c.Name)
		if !ok || !obs.live() {
			continue
		}
		p := d.Probes[obs.ID]
		switch {
		case obs.State == Unknown:
			d.again(obs, 0, false, AfterDelay, fmt.Sprintf("Container %s is in an unknown state, try killing it before restart", c.Name))
		case obs.Hash != 0 && obs.Hash != Hash(c.Container):
			d.again(obs, d.specGrace(), true, AfterDelay, fmt.Sprintf("Container %s definition changed, will be restarted", c.Name))
		case p.Unhealthy:
			grace := d.specGrace()
			if p.Grace != nil {
				grace = *p.Grace
			}
			d.again(obs, grace, true, AfterDelay, p.Message)
		}
	}
}

// startContainers starts what is next: init containers one after the other, then
// containers in their order. One start at a time, so that a postStart hook may
// hold up the containers behind it, as users rely on.
func (d *decision) startContainers() {
	if !d.startInit() {
		return
	}
	held := false
	for _, c := range d.specs() {
		switch {
		case c.role != regular && c.role != ephemeral:
		case held:
			d.prefetch(c)
		default:
			held = !d.startOne(c)
		}
	}
}

// prefetch gets the image of a container that waits for those before it.
func (d *decision) prefetch(c spec) {
	obs, exists := d.newest(c.Name)
	if exists && !d.mayStart(c, obs) {
		return
	}
	if attempt, _ := d.nextAttempt(c, obs, exists); !d.imageReady(c, attempt) {
		d.ensureImage(c, attempt)
	}
}

func (d *decision) ensureImage(c spec, attempt uint32) bool {
	return d.do(Step{Kind: EnsureImage, Container: c.Name, Image: c.Image, Attempt: attempt, Why: "image " + c.Image + " is needed"})
}

// startInit starts init containers and tells whether the others may start.
func (d *decision) startInit() bool {
	begun := d.regularBegun()
	for _, c := range d.specs() {
		switch c.role {
		case sidecar:
			ahead := d.startOne(c)
			if begun {
				continue // a restarting sidecar no longer holds up the rest
			}
			obs, ok := d.newest(c.Name)
			if !ahead || !ok || !d.here(obs) || !d.started(c, obs) {
				return false
			}
		case initial:
			if begun || d.completed(c) {
				continue
			}
			d.startOne(c)
			return false
		}
	}
	return true
}

// startOne begins the next step towards a running container, and tells whether
// those behind it may go on: not while its image is on its way, or its start.
func (d *decision) startOne(c spec) bool {
	if d.anyInFlight(StartContainer) || d.planned(StartContainer, "") {
		return false
	}
	obs, exists := d.newest(c.Name)
	if exists && !d.mayStart(c, obs) {
		return true
	}
	attempt, delay := d.nextAttempt(c, obs, exists)
	if exists && obs.State == Created { // left by a crash between create and start
		d.do(Step{Kind: RemoveContainer, ID: obs.ID, Container: c.Name, Why: "it was created and never started"})
		return false
	}
	if !d.imageReady(c, attempt) {
		return !d.ensureImage(c, attempt)
	}
	if d.sandbox == nil || !d.VolumesReady {
		return false
	}
	return !d.do(Step{Kind: StartContainer, Container: c.Name, SandboxID: d.sandbox.ID, Attempt: attempt, Delay: delay, Why: startReason(attempt)})
}

func startReason(attempt uint32) string {
	if attempt == 0 {
		return "it has not run yet"
	}
	return fmt.Sprintf("it ended and its restart policy wants it back (restart %d)", attempt)
}

// planned: the plan has such a step already, of a container if id is not "".
func (d *decision) planned(k Kind, id string) bool {
	for _, s := range d.plan.Steps {
		if s.Kind == k && (id == "" || s.ID == id) {
			return true
		}
	}
	return false
}

// mayStart: the newest attempt is over, shall run again, and its back-off is over.
func (d *decision) mayStart(c spec, obs Container) bool {
	if obs.live() || !d.restarts(c, obs) {
		return false
	}
	at, waiting := d.backoffEnd(obs)
	if waiting {
		d.wake(at)
	}
	return !waiting
}

// backoffEnd is until when the container waits after its last end.
func (d *decision) backoffEnd(obs Container) (time.Time, bool) {
	if obs.State != Exited || !d.here(obs) || d.atOnce(obs) {
		return time.Time{}, false
	}
	at := obs.Finished.Add(delayAfter(obs))
	return at, d.now.Before(at)
}

// atOnce: the container did not end by itself, or it ends with all others; only the
// one whose end began that waits.
func (d *decision) atOnce(obs Container) bool {
	if d.Again[obs.ID] == AtOnce {
		return true
	}
	for _, c := range d.specs() {
		if c.Name == obs.Name {
			return d.outdated(c, obs) && !d.resets(c, obs)
		}
	}
	return false
}

// nextAttempt gives the number of the next start and the delay to follow it.
// Where the runtime has lost all record, the last report still counts.
func (d *decision) nextAttempt(c spec, obs Container, exists bool) (uint32, time.Duration) {
	switch {
	case exists && obs.State == Created:
		return obs.Attempt, obs.Delay
	case exists && !d.here(obs): // a new sandbox begins with a fresh back-off
		return obs.Attempt + 1, 0
	case exists && d.atOnce(obs):
		return obs.Attempt + 1, obs.Delay
	case exists:
		return obs.Attempt + 1, longer(delayAfter(obs))
	}
	old, ok := statusOf(d.basis, c)
	switch {
	case !ok || c.role == ephemeral:
		return 0, 0
	case old.ContainerID != "":
		return uint32(old.RestartCount) + 1, 0
	}
	return uint32(old.RestartCount), 0 // that one was never started
}

func (d *decision) imageReady(c spec, attempt uint32) bool {
	r, ok := d.Images[c.Name]
	if !ok || r.Image != c.Image {
		return false
	}
	return c.ImagePullPolicy != corev1.PullAlways || r.Attempt == attempt
}

// here: the container is in the sandbox in use.
func (d *decision) here(c Container) bool { return d.sandbox != nil && c.SandboxID == d.sandbox.ID }

// completed: the init container has done its work in this sandbox.
func (d *decision) completed(c spec) bool {
	obs, ok := d.newest(c.Name)
	return ok && d.here(obs) && obs.State == Exited && obs.ExitCode == 0 && !d.outdated(c, obs)
}

// regularBegun: a container proper exists in this sandbox, so that all init
// containers have done their work, even if their records are gone.
func (d *decision) regularBegun() bool {
	for i := range d.Pod.Spec.Containers {
		c := spec{&d.Pod.Spec.Containers[i], regular}
		if obs, ok := d.newest(c.Name); ok && d.here(obs) && !d.outdated(c, obs) {
			return true
		}
	}
	return false
}

// recordsWhileRunning: of each container the newest attempt and the one before it
// are kept, for status and logs; the newest alone where the disk is short.
func (d *decision) recordsWhileRunning() int {
	if d.Reclaim {
		return 1
	}
	return 2
}

// recordsAfterwards: of a pod that has ended and is still in the API the last attempts
// are kept, for their logs; nothing where the disk is short, for the status has their story.
func (d *decision) recordsAfterwards() int {
	if d.Reclaim {
		return 0
	}
	return 1
}

// collect removes the records, logs included, of all but the keep newest attempts
// of each container.
func (d *decision) collect(keep int) {
	why := "newer attempts have been made"
	if d.Reclaim {
		why = "the node's disk is short"
	}
	for _, c := range d.Containers {
		for i, a := range d.byName[c.Name] {
			if a.ID == c.ID && i >= keep && !a.live() {
				d.do(Step{Kind: RemoveContainer, ID: a.ID, Container: a.Name, Why: why})
			}
		}
	}
}

// probe lists the running containers whose start has been completed.
func (d *decision) probe() {
	for _, c := range d.specs() {
		obs, ok := d.newest(c.Name)
		if ok && obs.State == Running && (c.role == regular || c.role == sidecar) && !d.starting(c.Name) {
			d.plan.Probe = append(d.plan.Probe, obs.ID)
		}
	}
}

// starting: the start of the container, its postStart hook included, is under way.
func (d *decision) starting(name string) bool {
	return d.inFlight(Step{Kind: StartContainer, Container: name})
}

// stop ends a container, if no stop that is at least as quick is under way.
func (d *decision) stop(c Container, total int64, hook bool, why string) {
	d.stopStep(c, total, Step{Hook: hook, Why: why})
}

// again is stop for a container that shall be started again then.
func (d *decision) again(c Container, total int64, hook bool, how Again, why string) {
	d.stopStep(c, total, Step{Hook: hook, Again: how, Why: why})
}

func (d *decision) stopStep(c Container, total int64, step Step) {
	grace := total
	if d.why != "" && !d.EndingSince.IsZero() {
		grace = max(total-int64(d.now.Sub(d.EndingSince)/time.Second), min(total, minimumGrace))
	}
	step.Kind, step.ID, step.Container, step.Grace, step.Total = StopContainer, c.ID, c.Name, grace, total
	for _, s := range d.InFlight {
		if s.Kind == StopContainer && s.ID == c.ID {
			if s.Total <= total {
				return
			}
			step.Hook = false // it is running already
		}
	}
	d.do(step)
}

// minimumGrace is what a container gets at least, in seconds, once it waited for
// others or its preStop hook has used up its time.
const minimumGrace = 2

func (d *decision) specGrace() int64 {
	if g := d.Pod.Spec.TerminationGracePeriodSeconds; g != nil {
		return *g
	}
	return corev1.DefaultTerminationGracePeriodSeconds
}
