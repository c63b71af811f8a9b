package daemonset

import "time"

// The status is written at once when it changes, and up to statusBurst times in a row; while changes keep coming,
// once every statusGap. So a lone change is never late, and a rollout to thousands of nodes costs a steady few
// writes a second.
const (
	statusBurst = 5
	statusGap   = 50 * time.Millisecond
)

// statusPace decides when to write the status.
type statusPace struct {
	stored   Status
	inFlight bool
	// full is when the allowance is, or was, whole again: each write moves it on by a gap.
	full     time.Time
	retries  int32
	notUntil time.Time
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
	p.full = p.full.Add(statusGap)
	return &current
}

// allowedAt is the earliest time for the next write.
func (p *statusPace) allowedAt() time.Time {
	if at := p.full.Add(-(statusBurst - 1) * statusGap); at.After(p.notUntil) {
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
	p.inFlight = false
	if worked {
		p.retries, p.notUntil = 0, time.Time{}
		return
	}
	p.notUntil = now.Add(doubled(5*time.Millisecond, p.retries, 10*time.Second))
	p.retries++
}
