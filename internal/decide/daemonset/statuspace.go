package daemonset

import "time"

// A status is one write, whether it tells of one node or of all: what matters is how many nodes a write tells of.
//
//   - A change of one node is written at once, up to statusBurst times in a row, and after that as often as leaves the
//     store four fifths of the time for others. So a lone change is never late, not even one that follows right after
//     another, and a slow store is asked less.
//   - A node for which a pod is being made changes in steps: it wants one, has one, it is ready. Those that come within a
//     statusGap of the create are one write.
//   - Changes of several nodes are a burst if there was a write just before: they wait until a gap has passed since
//     then, and so does what joins them. The gap doubles with each write of a burst, up to statusMaxGap, and is
//     statusGap again after a rest of twice the gap.
//
// So a thousand nodes that fail together are two writes, the first node's and all others', and a rollout that takes a
// minute about seventy, whatever the number of nodes.
const (
	statusBurst  = 5
	statusGap    = 50 * time.Millisecond
	statusMaxGap = time.Second
	// A lone write is followed by a pause of so many times as long as it took, within these bounds.
	statusPause    = 4
	statusMinPause = 10 * time.Millisecond
	statusMaxPause = statusMaxGap
)

// statusPace decides when to write the status.
type statusPace struct {
	stored   Status
	inFlight bool
	// full is when the allowance for lone changes is, or was, whole again: each write moves it on by the time that it
	// takes and the pause after it.
	full time.Time
	took time.Duration // of the last write
	// changes counts the nodes that changed since the last write was handed out, at last; node is the latest of them.
	// gap is what a burst waits.
	changes int
	node    *slot
	last    time.Time
	gap     time.Duration
	// making is the node for which a pod was promised last, whose steps are gathered until then.
	making *slot
	until  time.Time

	retries  int32
	notUntil time.Time
}

// make says that a pod is promised for the node.
func (p *statusPace) make(sl *slot, now time.Time) {
	p.making, p.until = sl, now.Add(statusGap)
}

// note says that a node changed. One that changes in several steps is one node.
func (p *statusPace) note(sl *slot) {
	if p.changes == 0 || p.node != sl {
		p.changes++
	}
	p.node = sl
}

// next returns the status to write now, nil if none.
func (p *statusPace) next(current Status, now time.Time) *Status {
	if current == p.stored || p.inFlight || now.Before(p.allowedAt()) {
		return nil
	}
	p.inFlight = true
	if p.full.Before(now) {
		p.full = now
	}
	p.full = p.full.Add(p.turn())
	switch rested := now.Sub(p.last) > 2*p.gap; {
	case rested:
		p.gap = statusGap
	case p.changes > 1:
		p.gap = min(2*p.gap, statusMaxGap)
	}
	p.changes, p.last = 0, now
	return &current
}

// turn is how long a write and the pause after it take.
func (p *statusPace) turn() time.Duration {
	return p.took + min(max(statusPause*p.took, statusMinPause), statusMaxPause)
}

// allowedAt is the earliest time for the next write.
func (p *statusPace) allowedAt() time.Time {
	at := p.full.Add(-(statusBurst - 1) * p.turn())
	switch {
	case p.changes > 1:
		at = p.last.Add(p.gap)
	case p.changes == 1 && p.node == p.making && !p.node.tally.ready && p.until.After(at):
		at = p.until
	}
	if at.After(p.notUntil) {
		return at
	}
	return p.notUntil
}

// due is when a write that has to wait may be done; zero when there is none.
func (p *statusPace) due(current Status, now time.Time) time.Time {
	if current == p.stored || p.inFlight || !p.allowedAt().After(now) {
		return time.Time{}
	}
	return p.allowedAt()
}

// StatusDone reports that the status write is over. If it worked, SetSpec with the object that came back is the
// news of what is stored, and belongs before this report.
func (s *Set) StatusDone(worked bool, now time.Time) {
	p := &s.status
	p.inFlight, p.took = false, now.Sub(p.last)
	if worked {
		p.retries, p.notUntil = 0, time.Time{}
		return
	}
	p.notUntil = now.Add(doubled(5*time.Millisecond, p.retries, 10*time.Second))
	p.retries++
}
