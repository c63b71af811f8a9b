package daemonset

import "time"

// The delays between two failed pods on one node, as upstream has them.
const (
	firstFailureDelay = time.Second
	maxFailureDelay   = 15 * time.Minute
)

// deleteEnded deletes pods that have succeeded, and those that failed unless the node's back-off holds: what
// rejects or kills one pod would do the same to the next.
func (s *Set) deleteEnded(sl *slot, now time.Time, a *Actions) {
	until := sl.failures.until()
	sl.live(func(p *pod) bool {
		switch {
		case p.leaving() || !p.ended():
		case p.succeeded:
			s.delete(p, Succeeded, now, a)
		case now.Before(until):
			s.wake(sl, until)
		default:
			sl.failures.next(now)
			s.delete(p, Failed, now, a)
		}
		return true
	})
}

// backoff is a delay that doubles each time and is forgotten after a long quiet.
type backoff struct {
	delay time.Duration
	since time.Time
}

func (b *backoff) until() time.Time { return b.since.Add(b.delay) }

// next notes a failure; several at one time are one.
func (b *backoff) next(now time.Time) {
	if b.delay > 0 && b.since.Equal(now) {
		return
	}
	if b.delay == 0 || now.Sub(b.since) > 2*maxFailureDelay {
		b.delay = firstFailureDelay
	} else {
		b.delay = min(2*b.delay, maxFailureDelay)
	}
	b.since = now
}
