package nodehealth

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Next returns what is to be done now, at most room actions of it.
func (s *Set) Next(now time.Time, room int) Actions {
	var a Actions
	if s.watching.IsZero() {
		s.watching = now
	}
	if s.slept(now) {
		s.watchFrom(now)
	}
	for s.deadlines.len() > 0 && !s.deadlines.first().wake.After(now) {
		s.touch(s.deadlines.pop())
	}
	if s.survey(now) {
		s.survey(now) // once more: at the end of a full disruption, who was late no longer is
		f := s.fleet
		a.Fleet = &f
	}
	for _, n := range s.dirty {
		s.place(n, now)
	}
	s.handOut(now)
	s.work(&a, now, room)
	s.dueTasks(&a, now, room)
	a.Reprieves = s.takeReprieves()
	s.news = false
	a.WakeUp = s.wakeUp(now)
	s.promised = a.WakeUp
	if s.promised.Before(now) { // there was no room
		s.promised = now
	}
	return a
}

// place puts a node into the queues where it belongs.
func (s *Set) place(n *node, now time.Time) {
	if n.obj == nil {
		return
	}
	if n.granted && (s.evicting(n, now) == "" || hasOurNoExecute(n.obj)) {
		n.granted = false
	}
	if s.mustWait(n, now) {
		if !s.waiting.has(n) {
			s.waiting.put(n)
		}
	} else {
		s.waiting.remove(n)
	}
	n.wake = s.deadline(n)
	switch {
	case n.retryAt.After(now):
		n.wake = n.retryAt
	case !n.wake.After(now): // late: only a sign of life changes that
		s.deadlines.remove(n)
		return
	}
	s.deadlines.put(n)
}

// work looks at the nodes of which something changed. Those for which there is no room are left for the next time.
func (s *Set) work(a *Actions, now time.Time, room int) {
	slices.SortFunc(s.dirty, func(a, b *node) int { return cmp.Compare(a.name, b.name) })
	var left []*node
	for _, n := range s.dirty {
		if n.obj == nil || n.writing || n.retryAt.After(now) {
			n.dirty = false
			continue
		}
		if s.write(n, now, a, a.Len() < room) {
			n.dirty = false
			continue
		}
		left = append(left, n)
		a.More = true
	}
	s.dirty = left
}

// write adds the write that the node needs, if it needs one. It reports false if there was no room for it.
func (s *Set) write(n *node, now time.Time, a *Actions, room bool) bool {
	if s.late(n, now) && readiness(n.obj) != corev1.ConditionUnknown {
		if room {
			a.Statuses = append(a.Statuses, s.status(n, now))
			n.writing = true
		}
		return room
	}
	x, needed := s.tainting(n, now)
	if !needed {
		return true
	}
	if room {
		a.Taintings = append(a.Taintings, x)
		n.writing = true
	}
	return room
}

func (s *Set) takeReprieves() []Pod {
	taken := s.reprieves
	s.reprieves = nil
	slices.SortFunc(taken, func(a, b Pod) int { return podBefore(&a, &b) })
	return taken
}

// wakeUp is when Next has something to do next. Lateness is looked at in bundles, a 64th of the grace period apart:
// else a large fleet would wake its driver for every single node that is well.
func (s *Set) wakeUp(now time.Time) time.Time {
	var at time.Time
	sooner := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	if s.deadlines.len() > 0 {
		bundle := max(s.o.GracePeriod/64, time.Millisecond)
		sooner(s.deadlines.first().wake.Add(bundle - 1).Truncate(bundle))
	}
	if s.tasks.len() > 0 {
		sooner(s.tasks.first().due)
	}
	if turn := s.nextTurn(); turn.After(now) { // else those who wait are being written, and their reports come here
		sooner(turn)
	}
	return at
}
