package podlife

import (
	"sort"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// patience is how long a report may wait for a pod that starts or stops without
// trouble: most are Running well within it, and then need one write instead of two.
const patience = time.Second

// crowdPatience is patience while many pods start at once: that each of them still waits for its
// turn is worth no write, which would take the time of those whose turn it is.
const crowdPatience = 10 * time.Second

// Decide returns what to do for the pod now.
func Decide(f Facts, now time.Time) Plan {
	d := newDecision(f, now)
	d.why = d.ending()
	d.plan.Ending = d.why != ""
	if d.plan.Ending {
		d.end(d.why)
	} else {
		d.run()
	}
	d.plan.Status = d.status()
	d.reportAfter()
	return d.plan
}

// decision is one call of Decide.
type decision struct {
	Facts
	now  time.Time
	plan Plan
	// why the pod ends, or "".
	why string
	// byName holds each container's attempts, the newest first.
	byName map[string][]Container
	// sandbox is the one to use: the newest that is ready. Nil if none is.
	sandbox *Sandbox
	// reset is when a container's end last began a restart of all; see restartall.go.
	reset time.Time
	// basis is the status that this one follows.
	basis *corev1.PodStatus
}

func newDecision(f Facts, now time.Time) *decision {
	d := &decision{Facts: f, now: now, byName: map[string][]Container{}, basis: f.Reported}
	if d.basis == nil {
		d.basis = &f.Pod.Status
	}
	d.Containers = make([]Container, 0, len(f.Containers))
	for _, c := range f.Containers {
		if c.Interrupted && !reportedRunning(d.basis, c) {
			c.State = Created
		}
		d.Containers = append(d.Containers, c)
		d.byName[c.Name] = append(d.byName[c.Name], c)
	}
	for _, attempts := range d.byName {
		sort.Slice(attempts, func(i, j int) bool { return newer(attempts[i], attempts[j]) })
	}
	d.Sandboxes = append([]Sandbox(nil), f.Sandboxes...)
	sort.Slice(d.Sandboxes, func(i, j int) bool {
		a, b := d.Sandboxes[i], d.Sandboxes[j]
		if a.Attempt != b.Attempt {
			return a.Attempt > b.Attempt
		}
		if !a.Created.Equal(b.Created) {
			return a.Created.After(b.Created)
		}
		return a.ID < b.ID
	})
	for i := range d.Sandboxes {
		if d.Sandboxes[i].Ready {
			d.sandbox = &d.Sandboxes[i]
			break
		}
	}
	d.findReset()
	return d
}

// reportedRunning: a status says that this very container was running.
func reportedRunning(s *corev1.PodStatus, c Container) bool {
	for _, list := range [][]corev1.ContainerStatus{s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses} {
		for i := range list {
			if list[i].ContainerID == publicID(c.ID) && (list[i].State.Running != nil || list[i].State.Terminated != nil || list[i].LastTerminationState.Terminated != nil) {
				return true
			}
		}
	}
	return false
}

func newer(a, b Container) bool {
	if a.Attempt != b.Attempt {
		return a.Attempt > b.Attempt
	}
	if !a.Created.Equal(b.Created) {
		return a.Created.After(b.Created)
	}
	return a.ID < b.ID
}

// newest attempt of a container, if the runtime has one.
func (d *decision) newest(name string) (Container, bool) {
	if a := d.byName[name]; len(a) > 0 {
		return a[0], true
	}
	return Container{}, false
}

// inFlight tells that a step is under way.
func (d *decision) inFlight(s Step) bool {
	_, ok := d.InFlight[s.Key()]
	return ok
}

func (d *decision) anyInFlight(kinds ...Kind) bool {
	for _, s := range d.InFlight {
		for _, k := range kinds {
			if s.Kind == k {
				return true
			}
		}
	}
	return false
}

// do adds a step, unless it is in flight or has failed so lately that it has to
// wait. It tells whether the step is now due or under way.
func (d *decision) do(s Step) bool {
	if d.inFlight(s) {
		return true
	}
	if f, failed := d.Failures[s.Key()]; failed && f.Attempt == s.Attempt {
		if at := retryAt(s.Kind, f); d.now.Before(at) {
			d.wake(at)
			return false
		}
	}
	d.plan.Steps = append(d.plan.Steps, s)
	return true
}

// wake makes sure that the next decision is not later than t.
func (d *decision) wake(t time.Time) {
	if d.plan.Wake.IsZero() || t.Before(d.plan.Wake) {
		d.plan.Wake = t
	}
}

// startTime is when the agent acknowledged the pod, as reported if it was.
func (d *decision) startTime() time.Time {
	if t := d.basis.StartTime; t != nil {
		return t.Time
	}
	return d.Seen.Truncate(time.Second)
}

// reportAfter lets the report of a pod that is on its way wait a moment.
func (d *decision) reportAfter() {
	switch {
	case d.plan.Ending && d.Pod.DeletionTimestamp != nil:
		since := d.EndingSince
		if since.IsZero() {
			since = d.now
		}
		d.plan.Report = since.Add(patience) // DeletePod stores the last word itself
	case d.plan.Ending:
	case d.plan.Status.Phase == corev1.PodPending && !d.troubled():
		d.plan.Report = d.Seen.Add(patience)
		if d.Crowded {
			d.plan.Report = latest(d.Seen, d.Written).Add(crowdPatience)
		}
	}
	if !d.plan.Report.IsZero() {
		if d.now.Before(d.plan.Report) {
			d.wake(d.plan.Report)
		} else {
			d.plan.Report = time.Time{}
		}
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// troubled: something has failed that a user should see.
func (d *decision) troubled() bool {
	if len(d.Failures) > 0 || d.NetworkError != "" && !d.Pod.Spec.HostNetwork {
		return true
	}
	for _, c := range d.Containers {
		if c.State == Exited && c.ExitCode != 0 {
			return true
		}
	}
	return false
}

func (d *decision) anyLive() bool {
	for _, c := range d.Containers {
		if c.live() {
			return true
		}
	}
	return false
}
