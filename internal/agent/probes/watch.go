package probes

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/everynode/everynode/internal/agent/metrics"
	"github.com/everynode/everynode/internal/decide/podlife"
	"github.com/everynode/everynode/internal/sleep"
)

// Target is a running container.
type Target struct {
	// Pod it is in.
	Pod       *corev1.Pod
	Container *corev1.Container
	// ID in the runtime.
	ID string
	// IP at which the pod answers.
	IP string
	// Started is when the container started; initial delays count from it.
	Started time.Time
}

// Event records an event of the container: type, reason and message.
type Event func(eventType, reason, message string)

// Prober carries what probes need. It is safe for concurrent use.
type Prober struct {
	// Exec runs a command in a container, as the CRI's ExecSync does.
	Exec func(ctx context.Context, id string, cmd []string, timeout time.Duration) (stdout, stderr []byte, err error)
}

// Has tells whether the container has any probe.
func Has(c *corev1.Container) bool {
	return c.StartupProbe != nil || c.ReadinessProbe != nil || c.LivenessProbe != nil
}

// Watch probes the container until ctx ends, and calls report with each change.
// The first state is resume (of a container that ran before the agent did), or for
// a new one that nothing has succeeded yet; it is not reported.
func (p *Prober) Watch(ctx context.Context, t Target, resume podlife.Probe, report func(podlife.Probe), event Event) {
	w := &watch{Prober: p, Target: t, report: report, event: event}
	w.counts.Container = t.Container.Name
	if t.Pod != nil {
		w.counts.Namespace, w.counts.Pod, w.counts.UID = t.Pod.Namespace, t.Pod.Name, t.Pod.UID
	}
	w.state = podlife.Probe{
		Started: resume.Started || t.Container.StartupProbe == nil,
		Ready:   resume.Ready || t.Container.ReadinessProbe == nil,
	}
	if !w.state.Started && !w.startup(ctx) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { w.readiness(ctx) })
	both.Go(func() { w.liveness(ctx) })
	both.Wait()
}

type watch struct {
	*Prober
	Target
	report func(podlife.Probe)
	event  Event
	counts metrics.Probed

	mu    sync.Mutex
	state podlife.Probe
}

// set changes the state, and reports it if it is another.
func (w *watch) set(change func(*podlife.Probe)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.state
	change(&w.state)
	if w.state != before {
		w.report(w.state)
	}
}

// startup returns true once the container has started, false if it never will.
func (w *watch) startup(ctx context.Context) bool {
	spec := w.Container.StartupProbe
	for r := range w.results(ctx, "Startup", spec, true) {
		if r {
			w.set(func(s *podlife.Probe) { s.Started = true })
			return true
		}
		w.unhealthy("startup", spec)
		return false
	}
	return false
}

func (w *watch) readiness(ctx context.Context) {
	if w.Container.ReadinessProbe == nil {
		return
	}
	w.mu.Lock()
	eager := !w.state.Ready
	w.mu.Unlock()
	for r := range w.results(ctx, "Readiness", w.Container.ReadinessProbe, eager) {
		w.set(func(s *podlife.Probe) { s.Ready = r })
	}
}

func (w *watch) liveness(ctx context.Context) {
	spec := w.Container.LivenessProbe
	if spec == nil {
		return
	}
	for r := range w.results(ctx, "Liveness", spec, false) {
		if !r {
			w.unhealthy("liveness", spec)
			return // on hold until the container has been restarted
		}
	}
}

func (w *watch) unhealthy(kind string, spec *corev1.Probe) {
	w.set(func(s *podlife.Probe) {
		s.Unhealthy = true
		s.Message = fmt.Sprintf("Container %s failed %s probe, will be restarted", w.Container.Name, kind)
		s.Grace = spec.TerminationGracePeriodSeconds
	})
}

// results yields true or false whenever a threshold is reached, until ctx ends or
// the loop breaks. An eager probe is tried more often at first: what is usually up
// within a second need not wait for the next period. Its early failures do not count.
func (w *watch) results(ctx context.Context, kind string, spec *corev1.Probe, eager bool) func(yield func(bool) bool) {
	return func(yield func(bool) bool) {
		period := time.Duration(max(spec.PeriodSeconds, 1)) * time.Second
		begin := w.Started.Add(time.Duration(spec.InitialDelaySeconds) * time.Second)
		if !sleep.For(ctx, time.Until(begin)) {
			return
		}
		counted := time.Now() // when a failure counts next
		early := firstRetry
		last, run := outcome(0), int32(0)
		for {
			o, detail := w.try(ctx, spec)
			if ctx.Err() != nil {
				return
			}
			w.counts.Count(kind, o.String())
			now := time.Now()
			if o == success {
				eager = false
			}
			if o != failure || !eager || !now.Before(counted) {
				if o == failure {
					w.failed(kind, detail)
				}
				if o != last {
					last, run = o, 0
				}
				run++
				if reached(spec, o, run) && !yield(o == success) {
					return
				}
				counted = now.Add(period)
			}
			wait := period
			if eager {
				wait, early = min(early, time.Until(counted)), 2*early
			}
			if !sleep.For(ctx, max(wait, 0)) {
				return
			}
		}
	}
}

// firstRetry is the wait after the first failure of an eager probe; it doubles.
const firstRetry = 100 * time.Millisecond

func reached(spec *corev1.Probe, o outcome, run int32) bool {
	switch o {
	case success:
		return run >= max(spec.SuccessThreshold, 1)
	case failure:
		return run >= max(spec.FailureThreshold, 1)
	}
	return false
}

func (w *watch) failed(kind, detail string) {
	w.event(corev1.EventTypeWarning, "Unhealthy", kind+" probe failed: "+strings.TrimSpace(detail))
}
