package pods

import (
	"sync"

	"github.com/everynode/everynode/internal/decide/podlife"
)

// many is how many pods that start at once keep the machine busy: what is only good to know waits.
const many = 4

// crowd counts the pods of which something is being started, or waits to be.
type crowd struct {
	mu   sync.Mutex
	pods int
	// calm is closed while there are not many.
	calm chan struct{}
}

func newCrowd() *crowd {
	c := &crowd{calm: make(chan struct{})}
	close(c.calm)
	return c
}

func (c *crowd) change(by int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.pods > many
	c.pods += by
	switch is := c.pods > many; {
	case is && !was:
		c.calm = make(chan struct{})
	case was && !is:
		close(c.calm)
	}
}

// calmed is closed while the node does not start many pods at once.
func (c *crowd) calmed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calm
}

// crowded tells that the node starts many pods at once.
func (c *crowd) crowded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pods > many
}

// join counts the worker's pod as long as something of it is being started.
func (w *worker) join(c *crowd) {
	for _, step := range w.facts.InFlight {
		if step.Kind != podlife.RunSandbox && step.Kind != podlife.StartContainer {
			continue
		}
		if !w.starting {
			w.starting = true
			c.change(+1)
		}
		return
	}
	w.leave(c)
}

func (w *worker) leave(c *crowd) {
	if w.starting {
		w.starting = false
		c.change(-1)
	}
}
