package nodehealth

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// labelExcluded takes a node out of the fleet's count.
const labelExcluded = "node.kubernetes.io/exclude-disruption"

// Fleet counts the nodes by whether they are ready. It decides how fast nodes are emptied: the more of them are in
// trouble at once, the more likely is it that the trouble is not theirs.
type Fleet struct {
	Ready    int        `json:"ready"`
	NotReady int        `json:"notReady"`
	State    FleetState `json:"state"`
}

// FleetState is how much of the fleet is in trouble.
type FleetState string

// The states of a fleet.
const (
	// FleetNormal: nodes get their NoExecute taint at the usual rate.
	FleetNormal FleetState = "Normal"
	// FleetPartial: so many are not ready that they get it slowly, or, in a small fleet, not at all.
	FleetPartial FleetState = "PartialDisruption"
	// FleetFull: none is ready. Nobody gets it, and those who have it lose it.
	FleetFull FleetState = "FullDisruption"
)

// tally is how a node is counted.
type tally uint8

const (
	uncounted tally = iota
	countedReady
	countedNotReady
)

// count has the node counted as it now is. One that is late counts as lost, even before that is written into it.
func (s *Set) count(n *node, now time.Time) {
	is := countedNotReady
	if readiness(n.obj) == corev1.ConditionTrue && !s.late(n, now) {
		is = countedReady
	}
	if _, excluded := n.obj.Labels[labelExcluded]; excluded {
		is = uncounted
	}
	s.recount(n, is)
}

func (s *Set) recount(n *node, is tally) {
	s.fleet.add(n.counted, -1)
	s.fleet.add(is, +1)
	n.counted = is
}

func (f *Fleet) add(as tally, n int) {
	switch as {
	case countedReady:
		f.Ready += n
	case countedNotReady:
		f.NotReady += n
	}
}

// gone tells whether nobody is to be evicted from anywhere.
func (f *Fleet) gone() bool { return f.State == FleetFull }

func (f *Fleet) state(o *Options) FleetState {
	switch {
	case f.Ready == 0 && f.NotReady > 0:
		return FleetFull
	case f.NotReady > 2 && float64(f.NotReady) >= o.UnhealthyFraction*float64(f.NotReady+f.Ready):
		return FleetPartial
	}
	return FleetNormal
}

// survey counts the nodes of which something changed, and reports whether that changes the fleet's state.
func (s *Set) survey(now time.Time) bool {
	for _, n := range s.dirty {
		if n.obj != nil {
			s.count(n, now)
		}
	}
	return s.assess(now)
}

// assess brings the fleet's state up to date, and reports whether it changed.
func (s *Set) assess(now time.Time) bool {
	was, is := s.fleet.State, s.fleet.state(&s.o)
	if was == is {
		return false
	}
	s.fleet.State = is
	if is == FleetFull {
		for n := range s.tainted {
			s.touch(n)
		}
	}
	if was == FleetFull {
		// The others may come back too: they get the time to.
		s.watchFrom(now)
	}
	return true
}

// pause is the time between two nodes' turns; false if none gets one.
func (s *Set) pause() (time.Duration, bool) {
	rate := s.o.EvictionRate
	switch {
	case s.fleet.gone():
		return 0, false
	case s.fleet.State == FleetPartial && s.fleet.Ready+s.fleet.NotReady <= s.o.LargeFleet:
		return 0, false
	case s.fleet.State == FleetPartial:
		rate = s.o.ReducedEvictionRate
	}
	return time.Duration(float64(time.Second) / rate), true
}

// nextTurn is when the next node may get a NoExecute taint; zero if none waits or may.
func (s *Set) nextTurn() time.Time {
	pause, may := s.pause()
	if !may || s.waiting.len() == 0 {
		return time.Time{}
	}
	return s.handedOut.Add(pause)
}

// handOut gives those their turn who have waited longest. Who is being written just now keeps its place.
func (s *Set) handOut(now time.Time) {
	var busy []*node
	for at := s.nextTurn(); !at.IsZero() && !at.After(now); at = s.nextTurn() {
		n := s.waiting.pop()
		if n.writing || n.retryAt.After(now) {
			busy = append(busy, n)
			continue
		}
		n.granted, s.handedOut = true, now
		s.touch(n)
	}
	for _, n := range busy {
		s.waiting.put(n)
	}
}
