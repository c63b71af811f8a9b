package nodehealth

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	machine "github.com/everynode/everynode/internal/decide/nodehealth"
)

// Controller watches over the nodes of a cluster.
type Controller struct {
	o      Options
	pods   cache.Indexer
	poked  chan struct{} // holds a token while the loop should look
	writes sync.WaitGroup
	events eventBudget

	mu       sync.Mutex
	set      *machine.Set
	inFlight int
}

// New makes a controller over the options' informers, and gives the pods' an index by node if it has none. It does
// nothing until Run.
func New(o Options) (*Controller, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	c := &Controller{o: o.withDefaults(), poked: make(chan struct{}, 1)}
	if err := c.index(); err != nil {
		return nil, err
	}
	c.o.Patience.Pods = c.podsOn
	if err := c.o.Patience.Validate(); err != nil {
		return nil, err
	}
	c.watched()
	return c, nil
}

// Run works until ctx ends and every write in flight has ended with it, and returns nil then. It returns an error
// if the informers could not be watched. It can be called again after it has returned, and then starts anew.
func (c *Controller) Run(ctx context.Context) error {
	c.mu.Lock()
	c.set, c.inFlight = machine.New(c.o.Patience), 0
	c.mu.Unlock()
	synced, unsubscribe, err := c.subscribe()
	if err != nil {
		return err
	}
	defer unsubscribe()
	// The machine must not act on a part: nodes without their leases, say.
	err = wait.PollUntilContextCancel(ctx, 5*time.Millisecond, true, func(context.Context) (bool, error) { return synced(), nil })
	if err == nil {
		klog.FromContext(ctx).V(2).Info("Node health controller started")
		c.loop(ctx)
	}
	c.writes.Wait()
	return nil
}

// loop asks the machine for work when something happened, and when it wanted to be asked.
func (c *Controller) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-c.poked:
		}
		actions := c.next()
		c.perform(ctx, &actions)
		switch {
		case actions.More: // the next report comes back here
			timer.Stop()
		case actions.WakeUp.IsZero():
			timer.Stop()
		default:
			timer.Reset(time.Until(actions.WakeUp))
		}
	}
}

func (c *Controller) next() machine.Actions {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.set.Next(time.Now(), c.o.Parallelism-c.inFlight)
	c.inFlight += a.Len()
	return a
}

// tell gives the machine a fact. If that may mean work, the loop is woken.
func (c *Controller) tell(fact func(s *machine.Set, now time.Time)) {
	c.mu.Lock()
	fact(c.set, time.Now())
	pending := c.set.Pending()
	c.mu.Unlock()
	if pending {
		c.poke()
	}
}

func (c *Controller) poke() {
	select {
	case c.poked <- struct{}{}:
	default:
	}
}

// start runs a write beside the loop, and tells the machine what it returns.
func (c *Controller) start(ctx context.Context, write func(context.Context) (report func(s *machine.Set, now time.Time))) {
	c.writes.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, writeTimeout)
		defer cancel()
		report := write(ctx)
		c.tell(func(s *machine.Set, now time.Time) {
			c.inFlight--
			report(s, now)
		})
		c.poke() // there is room again
	})
}
