package daemonset

import (
	"slices"
	"testing"
	"time"
)

// statuses plays changes of nodes, each at a time and of so many nodes, against a pace whose writes take a while. It
// returns when each write was handed out.
type statuses struct {
	pace  statusPace
	count int32
	node  *slot
	now   time.Time
	done  time.Time // of the write in flight
	takes time.Duration
	wrote []time.Duration
}

const writeTakes = 3 * time.Millisecond

func (s *statuses) status() Status { return Status{NumberReady: s.count} }

// until lets time pass.
func (s *statuses) until(at time.Time) {
	for {
		next := at
		if s.pace.inFlight && s.done.Before(next) {
			next = s.done
		}
		if due := s.pace.due(s.status(), s.now); !due.IsZero() && due.Before(next) {
			next = due
		}
		s.now = next
		if s.pace.inFlight && !s.done.After(s.now) {
			s.pace.inFlight, s.pace.took = false, s.takes
		}
		s.look()
		if !next.Before(at) {
			return
		}
	}
}

func (s *statuses) look() {
	if st := s.pace.next(s.status(), s.now); st != nil {
		s.pace.stored, s.done = *st, s.now.Add(s.takes)
		s.wrote = append(s.wrote, s.now.Sub(time.Unix(1000, 0)))
	}
}

// change is a step of a node: the same as before, or another.
func (s *statuses) change(at time.Duration, same ...bool) {
	s.until(time.Unix(1000, 0).Add(at))
	s.count++
	if len(same) == 0 {
		s.node = &slot{}
	}
	s.pace.note(s.node)
	s.look()
}

func TestStatusPace(t *testing.T) {
	play := func(changes int, gap, then time.Duration) *statuses {
		s := &statuses{now: time.Unix(1000, 0), takes: writeTakes}
		for i := range changes {
			s.change(time.Duration(i) * gap)
		}
		s.until(s.now.Add(then))
		if s.pace.stored != s.status() {
			t.Errorf("%d changes: the last is not written", changes)
		}
		return s
	}
	if s := play(1000, 10*time.Microsecond, time.Second); len(s.wrote) != 2 || s.wrote[0] != 0 || s.wrote[1] > statusGap {
		t.Errorf("a thousand at once: %v", s.wrote)
	}
	if s := play(60_000, time.Millisecond, 2*statusMaxGap); len(s.wrote) > 75 {
		t.Errorf("a rollout of a minute: %d writes", len(s.wrote))
	}
	if s := play(4, 2*writeTakes, time.Second); len(s.wrote) != 4 || s.wrote[3] != 6*writeTakes {
		t.Errorf("one after the other: %v", s.wrote)
	}
	for _, takes := range []time.Duration{0, writeTakes, 20 * time.Millisecond, 100 * time.Millisecond} {
		for _, gap := range []time.Duration{10 * time.Millisecond, takes + time.Millisecond} { // the latter: each comes when the last is written
			s := &statuses{now: time.Unix(1000, 0), takes: takes}
			for at := time.Duration(0); at < 10*time.Second; at += gap {
				s.change(at)
			}
			if busy := time.Duration(len(s.wrote)-statusBurst) * takes; busy > 5*time.Second { // half of it, where the pause grows into a burst's
				t.Errorf("a change every %v for ten seconds, in a store that takes %v: %d writes, %v", gap, takes, len(s.wrote), busy)
			}
		}
	}
	s := play(1, 0, time.Second)
	for i := range 3 { // while a write is in flight
		s.change(time.Minute+time.Duration(i)*writeTakes/3, true)
	}
	s.until(s.now.Add(writeTakes))
	if len(s.wrote) != 3 || s.wrote[2] != time.Minute+writeTakes {
		t.Errorf("steps of one node: %v", s.wrote)
	}
	s = play(60_000, time.Millisecond, 2*statusMaxGap)
	s.wrote = nil
	s.change(70 * time.Second)
	if len(s.wrote) != 1 || s.wrote[0] != 70*time.Second {
		t.Errorf("a lone change after a rollout: %v", s.wrote)
	}
}

// A pod is promised, seen and ready: one write if that is quick, and none that is later than a gap.
func TestStatusPaceOfPodsBeingMade(t *testing.T) {
	made := func(ready time.Duration) []time.Duration {
		s := &statuses{now: time.Unix(1000, 0), takes: writeTakes}
		s.change(0)
		s.until(s.now.Add(time.Second))
		s.wrote = nil
		s.node = &slot{}
		s.pace.make(s.node, time.Unix(1010, 0))
		s.change(10*time.Second, true)
		s.change(10*time.Second+time.Millisecond, true)
		s.until(time.Unix(1010, 0).Add(ready))
		s.node.tally.ready = true
		s.count++
		s.pace.note(s.node)
		s.look()
		s.until(s.now.Add(time.Second))
		return s.wrote
	}
	if got, want := made(5*time.Millisecond), []time.Duration{10*time.Second + 5*time.Millisecond}; !slices.Equal(got, want) {
		t.Errorf("ready at once: written at %v, want %v", got, want)
	}
	if got, want := made(2*time.Second), []time.Duration{10*time.Second + statusGap, 12 * time.Second}; !slices.Equal(got, want) {
		t.Errorf("ready later: written at %v, want %v", got, want)
	}
}
