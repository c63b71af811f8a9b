package footprint

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	const mib = 1 << 20
	p := pace{room: Room{Quiet: 50, Busy: 200, BusyMiB: 512}, percent: 50}
	start := time.Unix(0, 0)
	for _, step := range []struct {
		what            string
		second          int
		allocated, live uint64
		percent         int
		over            bool
	}{
		{"quiet", 0, mib, 60 * mib, 0, false},
		{"busy, small heap", 1, 100 * mib, 60 * mib, 200, false},
		{"a pause is still busy", 5, 0, 60 * mib, 0, false},
		{"the bound: 512 of 320 MiB", 6, 100 * mib, 320 * mib, 160, false},
		{"a little more", 7, 100 * mib, 340 * mib, 0, false},
		{"very large: never below quiet", 8, 100 * mib, 4096 * mib, 50, false},
		{"large again", 9, 100 * mib, 512 * mib, 100, false},
		{"a minute later", 69, 0, 300 * mib, 50, true},
		{"once is enough", 70, 0, 300 * mib, 0, false},
		{"unknown live heap", 71, 100 * mib, 0, 200, false},
	} {
		percent, over := p.next(start.Add(time.Duration(step.second)*time.Second), step.allocated, step.live)
		if percent != step.percent || over != step.over {
			t.Errorf("%s: got %d, %v; want %d, %v", step.what, percent, over, step.percent, step.over)
		}
	}
	if allocated, _ := heap(); allocated == 0 {
		t.Error("the runtime does not say what was allocated")
	}
}
