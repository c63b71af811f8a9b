package pods

import (
	"context"
	"slices"
	"sync"
)

// order says who goes first when a start has to wait: to finish the pods that were begun brings
// some of them up early, at no cost to the others.
type order int

const (
	finishes order = iota
	begins
	orders
)

// starts bounds how many sandboxes and containers are started at once.
type starts struct {
	most int

	mu      sync.Mutex
	running int
	waiting [orders][]chan struct{}
}

// slot waits until one more start is allowed.
func (s *starts) slot(ctx context.Context, o order) (release func(), err error) {
	s.mu.Lock()
	if s.running < s.most { // then nobody waits
		s.running++
		s.mu.Unlock()
		return s.release, nil
	}
	turn := make(chan struct{})
	s.waiting[o] = append(s.waiting[o], turn)
	s.mu.Unlock()
	select {
	case <-turn:
		return s.release, nil
	case <-ctx.Done():
		s.giveUp(o, turn)
		return nil, ctx.Err()
	}
}

// release passes the slot on.
func (s *starts) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for o := range s.waiting {
		if queue := s.waiting[o]; len(queue) > 0 {
			s.waiting[o] = queue[1:]
			close(queue[0])
			return
		}
	}
	s.running--
}

// giveUp takes back a wish, or what was granted at that moment.
func (s *starts) giveUp(o order, turn chan struct{}) {
	s.mu.Lock()
	i := slices.Index(s.waiting[o], turn)
	if i >= 0 {
		s.waiting[o] = slices.Delete(s.waiting[o], i, i+1)
	}
	s.mu.Unlock()
	if i < 0 {
		s.release()
	}
}
