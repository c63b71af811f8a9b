package daemonset

import "time"

// Next returns what should be done now, at most about room actions (a slot is decided as a whole, so there can
// be a few more). What it returns it counts on: creates are promises, deletes are asked for, until reported or
// seen otherwise. With nothing to do it returns no actions, and keeps doing so: converged means an empty plan.
func (s *Set) Next(now time.Time, room int) Actions {
	var a Actions
	s.fire(now)
	for {
		s.count(now)
		if s.spec.deleting {
			// The garbage collector deletes or orphans the pods; neither creating, nor adopting, nor a status
			// that counts what is being taken away would help.
			return a
		}
		s.act(now, room, &a)
		if len(s.changed) == 0 || a.Len() >= room {
			break
		}
	}
	a.More = a.Len() >= room && s.unfinished(now)
	a.Status = s.status.next(s.currentStatus(), now)
	a.WakeUp = s.wakeUp(now)
	return a
}

// act is one round of deciding, most urgent first: whose pods these are, what each slot needs by itself, and in
// a round without any of that, what the update's budget allows.
func (s *Set) act(now time.Time, room int, a *Actions) {
	s.claim(now, room, a)
	for s.todo.len() > 0 && a.Len() < room {
		s.decide(s.todo.pop(), now, a)
	}
	s.createMissing(now, room, a)
	if len(s.changed) == 0 && s.todo.len() == 0 {
		s.roll(now, room, a) // the budget is known only when nothing is left to count
	}
}

// fire marks the slots whose time has come.
func (s *Set) fire(now time.Time) {
	for s.timers.len() > 0 && !s.timers.min().due.After(now) {
		s.change(s.timers.pop())
	}
}

// count brings the counters up to date with every changed slot, and queues it to be decided.
func (s *Set) count(now time.Time) {
	for _, sl := range s.changed {
		sl.changed = false
		if !sl.needed() {
			s.forget(sl)
			continue
		}
		s.timers.remove(sl)
		s.recount(sl, now)
		s.todo.put(sl)
	}
	clear(s.changed)
	s.changed = s.changed[:0]
}

// forget ends a slot that nothing refers to.
func (s *Set) forget(sl *slot) {
	s.counts.add(sl.tally, -1)
	s.status.note(sl)
	s.waves[sl.wave].remove(sl)
	s.timers.remove(sl)
	s.todo.remove(sl)
	s.missing.remove(sl)
	delete(s.slots, sl.name)
}

// unfinished says whether more actions would have been taken with more room.
func (s *Set) unfinished(now time.Time) bool {
	return len(s.changed) > 0 || s.todo.len() > 0 || (s.missing.len() > 0 && s.slow.allowed(now) > 0) ||
		s.rolls() || s.claimable(now)
}

// wakeUp is the earliest of everything that waits for time to pass.
func (s *Set) wakeUp(now time.Time) time.Time {
	var at time.Time
	sooner := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	if s.timers.len() > 0 {
		sooner(s.timers.min().due)
	}
	if s.unowned.len() > 0 {
		sooner(s.unowned.min().retryAt)
	}
	if s.missing.len() > 0 || s.waves[waveAddNow].len() > 0 || s.waves[waveAdd].len() > 0 {
		sooner(s.slow.pausedUntil(now))
	}
	sooner(s.status.due(s.currentStatus(), now))
	return at
}
