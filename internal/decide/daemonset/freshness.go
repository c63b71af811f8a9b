package daemonset

import (
	"time"

	"github.com/everynode/everynode/internal/decide/placement"
	"k8s.io/apimachinery/pkg/types"
)

// The delays before a failed write is tried again for the same slot.
const (
	firstRetry = 20 * time.Millisecond
	maxRetry   = time.Minute
)

// fresh says whether the slot's facts show all our own creates, so that it may be decided. A create or delete
// that stays unseen for long is asked about: the watch may have skipped over a pod that came and went.
func (s *Set) fresh(sl *slot, now time.Time, a *Actions) bool {
	for _, p := range sl.pods {
		if p.askedAt.IsZero() || p.terminating {
			continue
		}
		if at := p.askedAt.Add(s.unseen); now.Before(at) {
			s.wake(sl, at)
			continue
		}
		p.askedAt = now
		s.wake(sl, now.Add(s.unseen))
		a.Checks = append(a.Checks, Check{Node: sl.name, Name: p.name, UID: p.uid})
	}
	pr := sl.promise
	if pr == nil {
		return true
	}
	if at := pr.since.Add(s.unseen); now.Before(at) {
		s.wake(sl, at)
		return false
	}
	pr.since = now
	s.wake(sl, now.Add(s.unseen))
	if pr.uid != "" {
		// Else the answer is still to come, and so may be the create: that there is no pod now would say nothing
		// about a moment later.
		a.Checks = append(a.Checks, Check{Node: sl.name, Name: pr.name, UID: pr.uid})
	}
	return false
}

// Created reports that a create worked, or met AlreadyExists on a pod of this DaemonSet for this node. The slot
// stays closed until that pod is seen.
func (s *Set) Created(name string, uid types.UID) {
	s.slow.worked()
	if sl := s.promised[name]; sl != nil {
		sl.promise.uid, sl.retries, sl.doubt = uid, 0, ""
		s.keepPromise(sl)
	}
}

// Failure is how a create did not work.
type Failure int

const (
	// Refused means that the API said no, so that nothing was stored.
	Refused Failure = iota
	// Taken means that the name belongs to something that is not this DaemonSet's pod for this node.
	Taken
	// Lost means that nobody knows. The pod may be there, or come to be.
	Lost
)

// CreateFailed reports that a create did not work. It is tried again after a delay, or at once under another
// name if the name is taken. While it is not known whether a pod came to be, the slot keeps trying that very
// name, whatever the revision is by then: any other could be a second pod.
func (s *Set) CreateFailed(name string, why Failure, now time.Time) {
	sl := s.promised[name]
	if sl == nil { // a Check found out before the answer came
		s.slow.worked()
		return
	}
	switch why {
	case Taken:
		s.slow.worked()
		sl.attempt++
		sl.doubt = ""
	case Lost:
		sl.doubt = name
		fallthrough
	default:
		s.slow.failed(sl.promise.epoch, now)
		s.retryLater(sl, now)
	}
	s.breakPromise(sl)
}

// DeleteFailed reports that a delete did not work, or that it is not known whether it did: it is asked for
// again after a delay.
func (s *Set) DeleteFailed(name string, uid types.UID, now time.Time) {
	if p := s.pods[name]; p != nil && p.uid == uid {
		p.askedAt, p.doubted = time.Time{}, true
		s.retryLater(p.slot, now)
		s.change(p.slot)
	}
}

// Gone reports, after a Check, that no such pod exists. Facts about it that still come are ignored.
func (s *Set) Gone(name string, uid types.UID) {
	if sl := s.promised[name]; sl != nil && sl.promise.uid != "" && sl.promise.uid == uid {
		s.breakPromise(sl)
	}
	if p := s.pods[name]; p != nil && uid != "" && p.uid == uid {
		s.buried[uid] = true
		s.detach(p)
	}
}

// Found reports, after a Check, that the pod exists and whether it is going. One that should go and does not is
// deleted again; until it goes, the budget counts it as going, for the first delete may still be on its way.
func (s *Set) Found(name string, uid types.UID, terminating bool) {
	if p := s.pods[name]; p != nil && p.uid == uid && !terminating && !p.askedAt.IsZero() {
		p.askedAt, p.doubted = time.Time{}, true
		s.change(p.slot)
	}
}

// keepPromise ends the slot's promise if the pod that was created is the one that was seen: not by its name
// alone, which an earlier pod may have had. Its entry in the ledger is the pod's now.
func (s *Set) keepPromise(sl *slot) {
	if sl.promise.uid == "" || sl.promise.uid != sl.promise.seen {
		return
	}
	delete(s.promised, sl.promise.name)
	sl.promise = nil
	s.change(sl)
}

// breakPromise ends the slot's promise without a pod, and gives back its room.
func (s *Set) breakPromise(sl *slot) {
	if sl.promise.bound && s.ledger != nil {
		s.ledger.Remove(placement.PodKey(s.spec.namespace, sl.promise.name))
	}
	delete(s.promised, sl.promise.name)
	sl.promise = nil
	s.change(sl)
}

// retryLater doubles the slot's delay.
func (s *Set) retryLater(sl *slot, now time.Time) {
	sl.retryAt = now.Add(doubled(firstRetry, sl.retries, maxRetry))
	sl.retries++
}

// doubled returns first, doubled n times, but no more than most.
func doubled(first time.Duration, n int32, most time.Duration) time.Duration {
	if n > 30 {
		return most
	}
	return min(first<<n, most)
}
