package daemonset

import "sync"

// inbox is what the loop is to do next, in the order of arrival. It has no bound: informers and reports must
// never wait for the loop, or it would wait for itself.
type inbox struct {
	arrived chan struct{} // holds a token while there is something

	mu    sync.Mutex
	items []func()
	spare []func()
}

func newInbox() *inbox { return &inbox{arrived: make(chan struct{}, 1)} }

func (b *inbox) put(f func()) {
	b.mu.Lock()
	b.items = append(b.items, f)
	b.mu.Unlock()
	select {
	case b.arrived <- struct{}{}:
	default:
	}
}

// take returns everything that has arrived. The slice is good until the next call; whoever takes clears it.
func (b *inbox) take() []func() {
	b.mu.Lock()
	defer b.mu.Unlock()
	taken := b.items
	b.items, b.spare = b.spare[:0], taken
	return taken
}
