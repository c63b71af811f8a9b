package daemonset

import (
	"time"

	"github.com/everynode/everynode/internal/decide/placement"
)

// decide applies the rules that need nothing but the slot itself.
func (s *Set) decide(sl *slot, now time.Time, a *Actions) {
	s.missing.remove(sl)
	if !s.fresh(sl, now, a) || sl.orphaned() {
		return
	}
	if now.Before(sl.retryAt) {
		s.wake(sl, sl.retryAt)
		return
	}
	switch {
	case sl.node == nil:
		s.deleteStrays(sl, now, a)
	case sl.outcome == placement.Out:
		s.deleteAll(sl, Excluded, now, a)
	default:
		s.deleteEnded(sl, now, a)
		if s.spec.surges() {
			s.deleteSurplus(sl, now, a)
		} else {
			s.deleteExcess(sl, now, a)
		}
		if s.isMissing(sl) {
			s.missing.put(sl)
		}
	}
}

// deleteStrays deletes pods that wait for a node that is gone. Pods bound to it are left to the pod garbage
// collector, which knows that nobody will confirm their end.
func (s *Set) deleteStrays(sl *slot, now time.Time, a *Actions) {
	sl.live(func(p *pod) bool {
		if !p.bound && !p.leaving() {
			s.delete(p, Stray, now, a)
		}
		return true
	})
}

func (s *Set) deleteAll(sl *slot, why Reason, now time.Time, a *Actions) {
	sl.live(func(p *pod) bool {
		if !p.leaving() {
			s.delete(p, why, now, a)
		}
		return true
	})
}

// deleteExcess keeps the first of the pods that run on a node.
func (s *Set) deleteExcess(sl *slot, now time.Time, a *Actions) {
	var keep *pod
	running := func(p *pod) bool { return !p.ended() && !p.leaving() }
	sl.live(func(p *pod) bool {
		if running(p) && (keep == nil || p.before(keep)) {
			keep = p
		}
		return true
	})
	sl.live(func(p *pod) bool {
		if running(p) && p != keep {
			s.delete(p, Excess, now, a)
		}
		return true
	})
}

// isMissing says whether the slot should get a pod: its node is open, and whatever is there has ended and goes.
// A successor of a pod that has ended need not wait until it is gone: nothing of it runs any more. Everything
// else is waited for, so that no two pods meet; only a surging set lets the new one come while the old one goes.
func (s *Set) isMissing(sl *slot) bool {
	if sl.outcome != placement.In || sl.promise != nil || sl.orphaned() {
		return false
	}
	free := true
	sl.live(func(p *pod) bool {
		free = p.leaving() && (p.ended() || (s.spec.surges() && p.terminating))
		return free
	})
	return free
}

// createMissing hands out creates for the slots that miss a pod, in the order of their names, as far as the
// slow start allows.
func (s *Set) createMissing(now time.Time, room int, a *Actions) {
	for s.missing.len() > 0 && a.Len() < room && s.slow.allowed(now) > 0 {
		s.create(s.missing.pop(), Missing, now, a)
	}
}

// create promises a pod for the slot.
func (s *Set) create(sl *slot, why Reason, now time.Time, a *Actions) {
	name, attempt := s.freeName(sl)
	c := Create{
		Node: sl.name, Name: name, Attempt: attempt, Reason: why,
		Bound:    s.reserve(sl, name),
		Template: s.spec.template,
	}
	sl.promise = &promise{name: name, bound: c.Bound, since: now, epoch: s.slow.sent()}
	if p := s.pods[name]; p != nil { // a doubted name: this pod may be what the create meets
		sl.promise.seen = p.uid
	}
	s.promised[name] = sl
	s.status.make(sl, now)
	s.change(sl)
	a.Creates = append(a.Creates, c)
}

// freeName returns the first name that none of the slot's pods has. It depends on the pods that are there and
// on nothing remembered, so another leader would choose the same.
func (s *Set) freeName(sl *slot) (name string, attempt int) {
	if sl.doubt != "" {
		return sl.doubt, int(sl.attempt)
	}
	for attempt = int(sl.attempt); ; attempt++ {
		name = podName(s.spec.name, s.spec.uid, sl.name, s.spec.revision, attempt)
		if s.pods[name] == nil && s.claims[name] == nil {
			return name, attempt
		}
	}
}

// reserve says whether the pod can be created bound, and enters its room in the ledger if so.
func (s *Set) reserve(sl *slot, name string) bool {
	if len(s.spec.placement.NeedsScheduler()) > 0 {
		return false
	}
	if s.ledger == nil {
		return true
	}
	if s.isRepelled() {
		return false
	}
	// A template that names its node is bound whatever the room, as the API has it.
	demand := s.spec.placement.Demand()
	if s.spec.template.pod.Spec.NodeName == "" && !s.ledger.Fits(sl.name, demand) {
		return false
	}
	s.ledger.Reserve(placement.PodKey(s.spec.namespace, name), sl.name, demand)
	return true
}

// isRepelled says whether some running pod's required anti-affinity may match ours. The answer is kept while no
// such pod comes or goes.
func (s *Set) isRepelled() bool {
	if v := s.ledger.RepelVersion(); s.repelled.spec != s.spec || s.repelled.version != v {
		s.repelled = repelled{spec: s.spec, version: v, is: s.ledger.Repels(s.spec.placement)}
	}
	return s.repelled.is
}

// repelled is a kept answer.
type repelled struct {
	spec    *spec
	version int
	is      bool
}

func (s *Set) delete(p *pod, why Reason, now time.Time, a *Actions) {
	p.askedAt = now
	s.change(p.slot)
	a.Deletes = append(a.Deletes, Delete{Node: p.slot.name, Name: p.name, UID: p.uid, Reason: why})
}
