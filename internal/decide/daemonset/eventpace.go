package daemonset

import (
	"slices"
	"strings"
	"time"
)

// Events are for a person who looks at one DaemonSet: the first few of a kind are worth an event each, the ten
// thousandth is not worth a write. So, of each reason,
//
//   - the first eventBurst are told one by one, and after that one more for every eventEvery that has passed;
//   - all others are counted, and told together by one event, that of the last: eventQuiet after the last of them, or
//     eventLatest after the first if they keep coming. Between two such events is eventLatest at least.
//
// A rollout to 5,000 nodes is eight events that name a pod and one of 4,992 more. Whatever happens, a DaemonSet costs
// at most eventBurst events of a reason at once and four a minute; and nothing stays untold, unless the controller ends
// before.
const (
	eventBurst  = 8 // client-go combines ten events of a reason into one that counts up
	eventEvery  = 30 * time.Second
	eventQuiet  = 2 * time.Second
	eventLatest = 30 * time.Second
)

// EventPace decides which of a DaemonSet's events are told, and when. The zero value is ready for use.
type EventPace struct {
	reasons map[string]*telling
}

// telling is what a reason may still say, and what it has not said.
type telling struct {
	spent float64 // of eventBurst
	since time.Time

	untold      int
	first, last time.Time // of the untold
	together    time.Time // when untold ones were last told
}

// Untold are events that are to be told as one.
type Untold struct {
	Reason string
	Count  int
}

// Tell says whether an event is to be told on its own. If not, it is counted and comes up in Due.
func (e *EventPace) Tell(reason string, now time.Time) bool {
	t := e.reasons[reason]
	if t == nil {
		if e.reasons == nil {
			e.reasons = map[string]*telling{}
		}
		t = &telling{since: now}
		e.reasons[reason] = t
	}
	t.spent = max(0, t.spent-float64(now.Sub(t.since))/float64(eventEvery))
	t.since = now
	if t.untold == 0 && t.spent <= eventBurst-1 {
		t.spent++
		return true
	}
	if t.untold++; t.untold == 1 {
		t.first = now
	}
	t.last = now
	return false
}

// due is when the untold ones are to be told.
func (t *telling) due() time.Time {
	at := t.last.Add(eventQuiet)
	if latest := t.first.Add(eventLatest); latest.Before(at) {
		at = latest
	}
	if !t.together.IsZero() {
		if next := t.together.Add(eventLatest); next.After(at) {
			at = next
		}
	}
	return at
}

// WakeUp is when Due has something to tell; zero for never.
func (e *EventPace) WakeUp() time.Time {
	var at time.Time
	for _, t := range e.reasons {
		if d := t.due(); t.untold > 0 && (at.IsZero() || d.Before(at)) {
			at = d
		}
	}
	return at
}

// Due returns what is to be told together now, by reason. It counts as told then.
func (e *EventPace) Due(now time.Time) []Untold {
	var due []Untold
	for reason, t := range e.reasons {
		if t.untold > 0 && !t.due().After(now) {
			due = append(due, Untold{Reason: reason, Count: t.untold})
			t.untold, t.together = 0, now
		}
	}
	slices.SortFunc(due, func(a, b Untold) int { return strings.Compare(a.Reason, b.Reason) })
	return due
}
