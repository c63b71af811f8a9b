package daemonset

import (
	"context"
	"sync"
	"time"

	machine "github.com/everynode/everynode/internal/decide/daemonset"
	"github.com/everynode/everynode/internal/decide/placement"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

// Controller runs every DaemonSet of a cluster.
type Controller struct {
	o      Options
	inbox  *inbox
	beside sync.WaitGroup // what runs beside the loop: reflectors and writes

	// What follows belongs to the loop.

	sets       map[types.UID]*daemon
	namespaces map[string]map[types.UID]*daemon
	queue      []*daemon                                // to be asked for work, in turn
	nodes      map[types.NamespacedName]*placement.Node // the keys have no namespace
	ledger     *placement.Ledger                        // within Options.Room, which is held while the loop does anything
	orphans    map[string]map[string]*machine.Pod       // by namespace and name: pods without a controller
	parked     map[types.UID]map[string]*machine.Pod    // by owner: pods whose DaemonSet is not managed (yet)
	revisions  revisionIndex
	unlisted   int             // kinds whose first list is not in yet
	acting     bool            // all first lists are in
	inFlight   int             // pod writes
	ctx        context.Context // of Run
	writing    context.Context // of writes that began at most a second after writingSince

	writingSince time.Time
}

// New makes a controller. It does nothing until Run.
func New(o Options) (*Controller, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return &Controller{o: o.withDefaults()}, nil
}

// Run works until ctx ends and everything in flight has ended with it, and returns nil then. It can be called
// again, after it has returned: each time it starts from nothing but what is stored.
func (c *Controller) Run(ctx context.Context) error {
	c.reset(ctx)
	c.follow(ctx)
	klog.FromContext(ctx).V(2).Info("DaemonSet controller started")
	c.loop(ctx)
	c.beside.Wait()
	return nil
}

func (c *Controller) reset(ctx context.Context) {
	c.ctx, c.writing = ctx, nil
	c.inbox = newInbox()
	c.sets = map[types.UID]*daemon{}
	c.namespaces = map[string]map[types.UID]*daemon{}
	c.queue = nil
	c.ledger = c.o.Room.reset()
	c.orphans = map[string]map[string]*machine.Pod{}
	c.parked = map[types.UID]map[string]*machine.Pod{}
	c.revisions = newRevisionIndex()
	c.acting, c.inFlight = false, 0
}

// loop takes what has arrived, tells the machines, and asks those that may have work.
func (c *Controller) loop(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(c.untilWakeUp())
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-c.inbox.arrived:
		}
		taken := c.inbox.take()
		for i, f := range taken {
			c.o.Room.hold(f)
			taken[i] = nil // it may hold a whole list
		}
		if c.acting {
			c.step()
		}
	}
}

// untilWakeUp looks at every DaemonSet: there are few, and it costs nothing beside the write it leads to.
func (c *Controller) untilWakeUp() time.Duration {
	now, until := time.Now(), time.Hour
	for _, d := range c.sets {
		if !d.wakeUp.IsZero() && !d.queued {
			until = min(until, max(d.wakeUp.Sub(now), 0))
		}
		if !d.tellAt.IsZero() {
			until = min(until, max(d.tellAt.Sub(now), 0))
		}
	}
	return until
}

// step asks the queued machines for work and starts it.
func (c *Controller) step() {
	now := time.Now()
	for _, d := range c.sets {
		if !d.wakeUp.IsZero() && !d.wakeUp.After(now) {
			c.enqueue(d)
		}
		if !d.tellAt.IsZero() && !d.tellAt.After(now) {
			c.tellUntold(d, now)
		}
	}
	for n := len(c.queue); n > 0 && len(c.queue) > 0; n-- {
		room := c.o.Parallelism - c.inFlight
		if room <= 0 {
			return // the next report comes back here
		}
		d := c.queue[0]
		c.queue = c.queue[1:]
		d.queued = false
		if d.set == nil || c.sets[d.ds.UID] != d {
			continue
		}
		c.o.Room.hold(func() { c.ask(d, now, room) })
	}
}

// ask starts what a machine wants done.
func (c *Controller) ask(d *daemon, now time.Time, room int) {
	actions := d.set.Next(now, room)
	d.wakeUp = actions.WakeUp
	c.perform(d, &actions)
	if actions.More {
		c.enqueue(d)
	}
	c.prune(d)
}

// enqueue notes that the DaemonSet may have work.
func (c *Controller) enqueue(d *daemon) {
	if !d.queued {
		d.queued = true
		c.queue = append(c.queue, d)
	}
}

// after does the write in a goroutine and has the loop run the function that it returns.
func (c *Controller) after(write func() (report func())) {
	c.beside.Go(func() { c.inbox.put(write()) })
}

// daemon is one DaemonSet that is managed.
type daemon struct {
	uid types.UID
	ds  *daemonSet   // as it was last seen or written
	set *machine.Set // nil until the revision of its template is known

	revision   string // hash of the template of generation
	generation int64
	history    historySync

	queued bool
	wakeUp time.Time

	events machine.EventPace
	untold map[string]event // the last by reason
	tellAt time.Time        // zero: nothing is untold
}
