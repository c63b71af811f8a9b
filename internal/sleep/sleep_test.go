package sleep

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestFor(t *testing.T) {
	for name, tc := range map[string]struct {
		wait, end time.Duration // the context ends after end; 0: before
		whole     bool
		took      time.Duration
	}{
		"the whole time":          {time.Second, time.Minute, true, time.Second},
		"the context ends before": {time.Minute, time.Second, false, time.Second},
		"a time that has passed":  {-time.Second, time.Minute, true, 0},
		"an ended context":        {-time.Second, 0, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), tc.end)
				defer cancel()
				began := time.Now()
				if whole := For(ctx, tc.wait); whole != tc.whole || time.Since(began) != tc.took {
					t.Errorf("%v after %s, want %v after %s", whole, time.Since(began), tc.whole, tc.took)
				}
			})
		})
	}
}
