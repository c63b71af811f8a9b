package daemonset

import (
	"time"

	"github.com/everynode/everynode/internal/decide/placement"
)

// A surging update brings the new pod up beside the old one, on at most maxSurge nodes at a time, and deletes
// the old one when the new one is available: a node is never without.

// deleteSurplus keeps, of a node's running pods, the oldest of the new revision and the oldest of an old one,
// and the latter only while it is ready and the former is not yet available.
func (s *Set) deleteSurplus(sl *slot, now time.Time, a *Actions) {
	var old, updated *pod
	running := func(p *pod) bool { return !p.ended() && !p.leaving() }
	sl.live(func(p *pod) bool {
		if running(p) {
			keep := &old
			if s.spec.updated(p) {
				keep = &updated
			}
			if *keep == nil || p.before(*keep) {
				*keep = p
			}
		}
		return true
	})
	sl.live(func(p *pod) bool {
		if running(p) && p != old && p != updated {
			s.delete(p, Excess, now, a)
		}
		return true
	})
	if old != nil && updated != nil && (!old.ready || s.availableBy(sl, updated, now)) {
		s.delete(old, Replaced, now, a)
	}
}

// classifySurge is classify for a surging set. asked says that a pod was asked to go and has not been seen going:
// until it is, the node may have two, and a new one would be the third.
func (s *Set) classifySurge(sl *slot, old, updated *pod, several, asked bool, t *tally, now time.Time) wave {
	if old != nil {
		t.surviving = s.availableBy(sl, old, now)
	} else if updated != nil {
		t.surviving = s.availableBy(sl, updated, now)
	}
	open := sl.outcome == placement.In
	switch {
	case several || (old != nil && sl.promise != nil):
		t.surging = true
	case old == nil:
		// present.go brings the new pod, or it is there.
	case updated != nil:
		t.surging = !s.availableBy(sl, updated, now)
	case old.ended():
		// ended.go takes it away.
	case !open && t.surviving:
		return waveSunset
	case !open:
		return waveReplace
	case asked:
		t.surging = sl.doubt != ""
	case sl.doubt != "":
		t.surging = true
		return waveAddNow
	case t.surviving:
		return waveAdd
	default:
		return waveAddNow
	}
	return waveNone
}

// surgeBudget is how many more nodes may have a second pod.
func (s *Set) surgeBudget() int {
	return s.spec.surge(s.counts.desired) - s.counts.surging
}

// rollSurge starts new pods beside old ones. A node that the template has left keeps its available pod until
// enough others are available.
func (s *Set) rollSurge(now time.Time, room int, a *Actions) {
	for s.waves[waveReplace].len() > 0 && a.Len() < room {
		s.replace(s.waves[waveReplace].min(), now, a)
	}
	for s.waves[waveSunset].len() > 0 && s.counts.surviving > s.counts.desired && a.Len() < room {
		s.replace(s.waves[waveSunset].min(), now, a)
	}
	add := func(w wave) {
		sl := s.waves[w].min()
		s.create(sl, Surge, now, a)
		s.recount(sl, now)
	}
	allowed := func() bool { return a.Len() < room && s.slow.allowed(now) > 0 }
	for s.waves[waveAddNow].len() > 0 && allowed() {
		add(waveAddNow)
	}
	for s.waves[waveAdd].len() > 0 && s.surgeBudget() > 0 && allowed() {
		add(waveAdd)
	}
}
