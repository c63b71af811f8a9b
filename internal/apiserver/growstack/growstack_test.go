package growstack

import (
	"sync"
	"testing"
)

// deep is a call chain of n frames that hold what a real one would.
//
//go:noinline
func deep(n int, p *int) int {
	var frame [256]byte
	frame[n%256] = byte(n)
	if n == 0 {
		return int(frame[0])
	}
	x := *p
	return deep(n-1, &x) + int(frame[n%256])
}

func TestGrowAllocatesNothing(t *testing.T) {
	if n := testing.AllocsPerRun(100, Grow); n != 0 {
		t.Errorf("%v allocations: the room is not on the stack", n)
	}
}

func BenchmarkGoroutine(b *testing.B) {
	for name, first := range map[string]func(){"grown": Grow, "as it is": func() {}} {
		b.Run(name, func(b *testing.B) {
			var wg sync.WaitGroup
			for b.Loop() {
				wg.Go(func() {
					first()
					x := 1
					deep(40, &x)
				})
				wg.Wait()
			}
		})
	}
}
