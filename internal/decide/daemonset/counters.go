package daemonset

import (
	"time"

	"github.com/everynode/everynode/internal/decide/placement"
	appsv1 "k8s.io/api/apps/v1"
)

// Status is the part of a DaemonSet's status that the machine computes.
type Status struct {
	ObservedGeneration     int64 `json:"observedGeneration"`
	DesiredNumberScheduled int32 `json:"desiredNumberScheduled"`
	CurrentNumberScheduled int32 `json:"currentNumberScheduled"`
	NumberMisscheduled     int32 `json:"numberMisscheduled"`
	NumberReady            int32 `json:"numberReady"`
	UpdatedNumberScheduled int32 `json:"updatedNumberScheduled"`
	NumberAvailable        int32 `json:"numberAvailable"`
	NumberUnavailable      int32 `json:"numberUnavailable"`
}

// Write puts the numbers into a DaemonSet's status and leaves the rest (collision count, conditions) alone.
func (st Status) Write(to *appsv1.DaemonSetStatus) {
	to.ObservedGeneration = st.ObservedGeneration
	to.DesiredNumberScheduled = st.DesiredNumberScheduled
	to.CurrentNumberScheduled = st.CurrentNumberScheduled
	to.NumberMisscheduled = st.NumberMisscheduled
	to.NumberReady = st.NumberReady
	to.UpdatedNumberScheduled = st.UpdatedNumberScheduled
	to.NumberAvailable = st.NumberAvailable
	to.NumberUnavailable = st.NumberUnavailable
}

func statusOf(from *appsv1.DaemonSetStatus) Status {
	return Status{
		ObservedGeneration:     from.ObservedGeneration,
		DesiredNumberScheduled: from.DesiredNumberScheduled,
		CurrentNumberScheduled: from.CurrentNumberScheduled,
		NumberMisscheduled:     from.NumberMisscheduled,
		NumberReady:            from.NumberReady,
		UpdatedNumberScheduled: from.UpdatedNumberScheduled,
		NumberAvailable:        from.NumberAvailable,
		NumberUnavailable:      from.NumberUnavailable,
	}
}

// tally is what one slot adds to the counters.
type tally struct {
	desired, current, misscheduled, ready, updated, available bool

	// The update's budget counts differently: see rollingupdate.go and surge.go.
	unavailable, surging, surviving bool
}

// counts are the sums of all tallies.
type counts struct {
	desired, current, misscheduled, ready, updated, available int
	unavailable, surging, surviving                           int
}

func (c *counts) add(t tally, sign int) {
	for _, x := range [...]struct {
		is  bool
		sum *int
	}{
		{t.desired, &c.desired}, {t.current, &c.current}, {t.misscheduled, &c.misscheduled}, {t.ready, &c.ready},
		{t.updated, &c.updated}, {t.available, &c.available},
		{t.unavailable, &c.unavailable}, {t.surging, &c.surging}, {t.surviving, &c.surviving},
	} {
		if x.is {
			*x.sum += sign
		}
	}
}

// recount replaces the slot's part in the counters and in the waves.
func (s *Set) recount(sl *slot, now time.Time) {
	t := s.statusTally(sl, now)
	w := s.classify(sl, &t, now)
	if w != waveNone && !s.mayRoll(sl, now) {
		w = waveNone
	}
	if t != sl.tally {
		s.counts.add(sl.tally, -1)
		s.counts.add(t, 1)
		sl.tally = t
		s.status.note(sl)
	}
	if w != sl.wave {
		s.waves[sl.wave].remove(sl)
		sl.wave = w
		if w != waveNone {
			s.waves[w].put(sl)
		}
	}
}

// statusTally counts as the API documents its status fields: of a node that should have a pod its first pod is
// looked at, also while it goes; pods that are over count no more.
func (s *Set) statusTally(sl *slot, now time.Time) tally {
	var t tally
	if sl.node == nil {
		return t
	}
	p := sl.first()
	if sl.outcome != placement.In {
		t.misscheduled = p != nil
		return t
	}
	t.desired = true
	if p == nil {
		return t
	}
	t.current = true
	t.ready = p.ready
	t.updated = s.spec.updated(p)
	t.available = s.availableBy(sl, p, now)
	return t
}

// availableBy says whether the pod is available now; if it will be, the slot wakes up then.
func (s *Set) availableBy(sl *slot, p *pod, now time.Time) bool {
	if p.available(s.spec.minReady, now) {
		return true
	}
	if at, ok := p.availableAt(s.spec.minReady); ok {
		s.wake(sl, at)
	}
	return false
}

func (s *Set) currentStatus() Status {
	c := &s.counts

	return Status{
		ObservedGeneration:     s.spec.generation,
		DesiredNumberScheduled: int32(c.desired),
		CurrentNumberScheduled: int32(c.current),
		NumberMisscheduled:     int32(c.misscheduled),
		NumberReady:            int32(c.ready),
		UpdatedNumberScheduled: int32(c.updated),
		NumberAvailable:        int32(c.available),
		NumberUnavailable:      int32(c.desired - c.available),
	}
}
