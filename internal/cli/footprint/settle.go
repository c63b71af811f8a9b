package footprint

import (
	"context"
	"runtime/debug"
	"time"

	"k8s.io/klog/v2"
)

const (
	// settleTick is how often Settle looks. A page of text that was not used for so long is not needed.
	settleTick = 30 * time.Second
	// settleWork is how much has to have been allocated for it to be worth collecting it and giving it back.
	settleWork = 24 << 20
	// settleCalm is how little is allocated in a tick of a quiet process.
	settleCalm = 8 << 20
)

// Settle is Release for a role that works now and then, in the background until ctx ends: while it
// is quiet, only the text that it has used lately stays mapped (to have a page back costs a minor
// fault, all of them together a millisecond or two), and what a time of work has left on the heap
// goes back to the kernel once that is over.
func Settle(ctx context.Context) {
	Release(ctx)
	go func() {
		tick := time.NewTicker(settleTick)
		defer tick.Stop()
		var s settle
		before, _ := heap()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			total, _ := heap()
			text, freed := s.next(total - before)
			before = total
			if freed {
				debug.FreeOSMemory()
			}
			if text {
				if err := dropText(); err != nil {
					klog.V(1).InfoS("Memory of the program's text is not released", "err", err)
					return
				}
			}
		}
	}()
}

// settle is how much was allocated since the heap was given back.
type settle struct{ work uint64 }

// next takes what was allocated in the last tick, and returns what is to go: text that was not
// used lately, and what lies free on the heap.
func (s *settle) next(allocated uint64) (text, freed bool) {
	s.work += allocated
	if allocated > settleCalm {
		return false, false
	}
	if s.work < settleWork {
		return true, false
	}
	s.work = 0
	return true, true
}
