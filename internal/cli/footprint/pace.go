package footprint

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Room says how far the heap may grow beyond what is alive, before the garbage collector runs.
// What a collection costs depends on what is alive, and how often one is due on this room: a heap
// that is small for the sake of a quiet process costs a busy one a third of its CPU.
type Room struct {
	// Quiet is the percentage of the live heap while little is allocated.
	Quiet int
	// Busy is the percentage while much is; at most BusyMiB, at least Quiet.
	Busy, BusyMiB int
}

const (
	// busyRate is where busy begins, in bytes allocated a second. A quiet server is far below.
	busyRate = 16 << 20
	// busyFor is how long busy lasts after the last second of much allocation. Giving memory back costs a collection of
	// all that is alive, so a pause within a long change (nodes that join one by one) must not count as its end.
	busyFor = time.Minute
	// paceStep is the least change, in percent, that is worth stopping the world for.
	paceStep = 20
)

// Pace moves between the two in the background until ctx ends; what a busy time has left goes back
// to the kernel. It does nothing where the environment sets GOGC.
func Pace(ctx context.Context, r Room) {
	if os.Getenv("GOGC") != "" {
		return
	}
	debug.SetGCPercent(r.Quiet)
	go func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		p := pace{room: r, percent: r.Quiet}
		allocated, _ := heap()
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-tick.C:
				total, live := heap()
				percent, over := p.next(now, total-allocated, live)
				allocated = total
				if percent != 0 {
					debug.SetGCPercent(percent)
				}
				if over {
					debug.FreeOSMemory()
				}
			}
		}
	}()
}

// pace is where Pace stands.
type pace struct {
	room    Room
	percent int
	until   time.Time // when busy ends
}

// next takes what was allocated in the last second, and what was alive after the last collection.
// It returns the new percentage, or 0 to keep the old one, and whether a busy time is over.
func (p *pace) next(now time.Time, allocated, live uint64) (percent int, over bool) {
	if allocated >= busyRate {
		p.until = now.Add(busyFor)
	}
	if !now.Before(p.until) {
		over = p.percent != p.room.Quiet
		return p.set(p.room.Quiet), over
	}
	want := p.room.Busy
	if live > 0 {
		want = min(want, int(uint64(p.room.BusyMiB)<<20*100/live))
	}
	want = max(want, p.room.Quiet)
	if diff := want - p.percent; -paceStep < diff && diff < paceStep {
		return 0, false
	}
	return p.set(want), false
}

func (p *pace) set(percent int) int {
	if percent == p.percent {
		return 0
	}
	p.percent = percent
	return percent
}

// heap reads how many bytes were ever allocated, and how many the last collection found alive.
func heap() (allocated, live uint64) {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64(), s[1].Value.Uint64()
}
