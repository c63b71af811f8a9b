package daemonset

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestEventsOfARollout(t *testing.T) {
	var e EventPace
	begin := time.Unix(1000, 0)
	now, told := begin, 0
	for range 5000 {
		now = now.Add(time.Millisecond)
		if e.Tell("SuccessfulCreate", now) {
			told++
		}
		if due := e.Due(now); len(due) > 0 {
			t.Fatalf("told %v while pods are being created", due)
		}
	}
	if told != 8 {
		t.Errorf("%d events of single pods", told)
	}
	if at := e.WakeUp(); !at.Equal(now.Add(2 * time.Second)) {
		t.Errorf("wakes up %v after the last", at.Sub(now))
	}
	if d := cmp.Diff([]Untold{{"SuccessfulCreate", 4992}}, e.Due(e.WakeUp())); d != "" {
		t.Error(d)
	}
	if at := e.WakeUp(); !at.IsZero() || len(e.Due(now.Add(time.Hour))) > 0 {
		t.Error("told twice")
	}
	if !e.Tell("SuccessfulDelete", now) {
		t.Error("another reason has to wait")
	}
	if !e.Tell("SuccessfulCreate", now.Add(eventEvery)) {
		t.Error("a single event is not told after a while")
	}
}

// TestEventsAreBoundedAndComplete: whatever comes, events are few, and the numbers in them add up.
func TestEventsAreBoundedAndComplete(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var e EventPace
		begin := time.Unix(1000, 0)
		now := begin
		noted, told, events, late := 0, 0, 0, time.Duration(0)
		var since time.Time // of the first that is untold
		look := func() {
			for _, u := range e.Due(now) {
				events++
				told += u.Count
				late = max(late, now.Sub(since))
				since = time.Time{}
			}
		}
		pace := rapid.SampledFrom([]time.Duration{time.Microsecond, 10 * time.Millisecond, time.Second, 3 * time.Second, 20 * time.Second, time.Minute})
		for range rapid.IntRange(1, 20).Draw(t, "bursts") {
			gap := pace.Draw(t, "gap")
			for range rapid.IntRange(1, 200).Draw(t, "size") {
				next := now.Add(gap)
				for at := e.WakeUp(); !at.IsZero() && !at.After(next); at = e.WakeUp() {
					if at.After(now) {
						now = at
					}
					look()
				}
				now = next
				noted++
				if e.Tell("x", now) {
					events++
					told++
				} else if since.IsZero() {
					since = now
				}
			}
		}
		minutes := now.Sub(begin).Minutes()
		if at := e.WakeUp(); !at.IsZero() {
			now = at
			look()
		}
		if told != noted {
			t.Fatalf("%d happened, the events say %d", noted, told)
		}
		if most := eventBurst + 2 + 4*minutes; float64(events) > most {
			t.Fatalf("%d events in %.1f minutes", events, minutes)
		}
		if late > 2*eventLatest {
			t.Fatalf("told %v late", late)
		}
	})
}
