package daemonset

import "time"

// wave is a slot's part in a rolling update: which heap it waits in.
type wave uint8

const (
	waveNone wave = iota
	// waveReplace: the old pod is not available, or may be on its way out already, so replacing it makes nothing
	// worse. It needs no budget.
	waveReplace
	// waveCandidate: the old pod is available; it is replaced when the budget has a place.
	waveCandidate
	// waveAddNow, waveAdd and waveSunset are those of surge.go.
	waveAddNow
	waveAdd
	waveSunset
	waveCount
)

// classify finds the slot's part in the update, and counts it in the update's budget. Every node that should
// have a pod, or has one, takes part; one that is gone takes none of the budget, though its pods may linger.
func (s *Set) classify(sl *slot, t *tally, now time.Time) wave {
	var old, updated *pod
	pods, several, asked := 0, false, false
	sl.live(func(p *pod) bool {
		pods++
		if p.leaving() {
			asked = asked || !p.terminating
			return true
		}
		place := &old
		if s.spec.updated(p) {
			place = &updated
		}
		several = several || *place != nil
		*place = p
		return true
	})
	if sl.node == nil || (pods == 0 && !t.desired && sl.promise == nil) {
		return waveNone
	}
	if s.spec.surges() {
		return s.classifySurge(sl, old, updated, several, asked, t, now)
	}
	switch {
	case several, sl.promise != nil, (old == nil) == (updated == nil):
		t.unavailable = true // present.go is at work here
	case updated != nil:
		t.unavailable = !s.availableBy(sl, updated, now)
	case !s.spec.rolling:
		// OnDelete: an old pod waits for the user.
	case old.doubted || !s.availableBy(sl, old, now):
		t.unavailable = true
		return waveReplace
	default:
		return waveCandidate
	}
	return waveNone
}

// mayRoll says whether the update may touch the slot now.
func (s *Set) mayRoll(sl *slot, now time.Time) bool {
	if now.Before(sl.retryAt) {
		s.wake(sl, sl.retryAt)
		return false
	}
	return !sl.orphaned()
}

// roll takes what the budget of the update strategy allows.
func (s *Set) roll(now time.Time, room int, a *Actions) {
	switch {
	case !s.spec.rolling:
	case s.spec.surges():
		s.rollSurge(now, room, a)
	default:
		s.rollUnavailable(now, room, a)
	}
}

// rollUnavailable replaces old pods that are not available, then as many others as may be unavailable besides.
// Deleting is all there is to do: present.go creates the successor when the old pod is gone.
func (s *Set) rollUnavailable(now time.Time, room int, a *Actions) {
	for s.waves[waveReplace].len() > 0 && a.Len() < room {
		s.replace(s.waves[waveReplace].min(), now, a)
	}
	for s.waves[waveCandidate].len() > 0 && s.budget() > 0 && a.Len() < room {
		s.replace(s.waves[waveCandidate].min(), now, a)
	}
}

// budget is how many more nodes may become unavailable.
func (s *Set) budget() int {
	return s.spec.unavailable(s.counts.desired) - s.counts.unavailable
}

// replace deletes the slot's old pod and counts it out at once, so that the budget is never overdrawn.
func (s *Set) replace(sl *slot, now time.Time, a *Actions) {
	sl.live(func(p *pod) bool {
		if !p.leaving() && !s.spec.updated(p) {
			s.delete(p, Outdated, now, a)
		}
		return true
	})
	s.recount(sl, now)
}

// rolls says whether the update could go on right now, given room.
func (s *Set) rolls() bool {
	if !s.spec.rolling {
		return false
	}
	if s.spec.surges() {
		return s.waves[waveAddNow].len() > 0 || (s.waves[waveAdd].len() > 0 && s.surgeBudget() > 0)
	}
	return s.waves[waveReplace].len() > 0 || (s.waves[waveCandidate].len() > 0 && s.budget() > 0)
}
