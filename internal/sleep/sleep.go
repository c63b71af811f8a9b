// Package sleep waits for a time or the end of a context, whichever comes first. Every loop that
// tries again uses it; it knows nothing of why.
package sleep

import (
	"context"
	"time"
)

// For waits for d, and tells whether ctx still lasts. It does not wait for a time that has passed.
func For(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
