package daemonset

import (
	"math"
	"time"
)

// The delays after creates that failed in a row.
const (
	firstPause = 20 * time.Millisecond
	maxPause   = 30 * time.Second
	// fullWindow is how many creates in flight end a slow start.
	fullWindow = 1024
)

// slowStart keeps a set whose creates all fail (a quota, a webhook, a missing service account) from asking for
// thousands of them: after a failure one is tried, then two, four and so on while they work, and with a growing
// pause before the first while they do not.
type slowStart struct {
	window   int // 0: not slow
	inFlight int
	failures int32 // epochs with a failure, in a row
	epoch    int   // creates handed out before the last failure do not count against the next
	until    time.Time
}

// allowed is how many creates may be handed out now.
func (w *slowStart) allowed(now time.Time) int {
	switch {
	case w.window == 0:
		return math.MaxInt
	case now.Before(w.until):
		return 0
	default:
		return w.window - w.inFlight
	}
}

// pausedUntil returns when creates go on, zero when they are not paused.
func (w *slowStart) pausedUntil(now time.Time) time.Time {
	if w.window > 0 && now.Before(w.until) {
		return w.until
	}
	return time.Time{}
}

// sent notes a create that is handed out and returns its epoch.
func (w *slowStart) sent() int {
	w.inFlight++
	return w.epoch
}

func (w *slowStart) worked() {
	w.inFlight--
	w.failures = 0
	if w.window > 0 {
		if w.window *= 2; w.window >= fullWindow {
			w.window = 0
		}
	}
}

func (w *slowStart) failed(epoch int, now time.Time) {
	w.inFlight--
	if epoch != w.epoch {
		return
	}
	w.epoch++
	w.window = 1
	w.until = now.Add(doubled(firstPause, w.failures, maxPause))
	w.failures++
}
