package daemonset

import (
	"context"
	"slices"
	"sync"
	"time"

	machine "github.com/everynode/everynode/internal/decide/daemonset"
	"github.com/everynode/everynode/internal/decide/placement"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// Controller runs every DaemonSet of a cluster.
type Controller struct {
	o       Options
	watched []watched
	inbox   *inbox
	writes  sync.WaitGroup

	// What follows belongs to the loop.

	sets       map[types.UID]*daemon
	namespaces map[string]map[types.UID]*daemon
	queue      []*daemon // to be asked for work, in turn
	nodes      map[string]*placement.Node
	ledger     *placement.Ledger                    // within Options.Room, which is held while the loop does anything
	orphans    map[string]map[string]*corev1.Pod    // by namespace and name: pods without a controller
	parked     map[types.UID]map[string]*corev1.Pod // by owner: pods whose DaemonSet is not managed (yet)
	revisions  revisionIndex
	acting     bool            // the first events are in
	inFlight   int             // pod writes
	ctx        context.Context // of Run, for the writes that an event starts
}

// New makes a controller over the options' informers, which it asks the factory for. It does nothing until Run.
func New(o Options) (*Controller, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	c := &Controller{o: o.withDefaults()}
	c.watched = c.watch()
	return c, nil
}

// Run works until ctx ends and every write in flight has ended with it, and returns nil then. It returns an
// error if the informers could not be watched. It can be called again, after it has returned: each time it
// starts from nothing but the informers.
func (c *Controller) Run(ctx context.Context) error {
	c.reset(ctx)
	// Only what is fresh is listened to, so that the first events are all of it.
	if !c.awaitFresh(ctx) {
		return nil
	}
	if err := c.subscribe(); err != nil {
		return err
	}
	defer c.unsubscribe()
	c.writes.Go(func() { c.awaitFirstEvents(ctx) })
	klog.FromContext(ctx).V(2).Info("DaemonSet controller started")
	c.loop(ctx)
	c.writes.Wait()
	return nil
}

func (c *Controller) reset(ctx context.Context) {
	c.ctx = ctx
	c.inbox = newInbox()
	c.sets = map[types.UID]*daemon{}
	c.namespaces = map[string]map[types.UID]*daemon{}
	c.queue = nil
	c.nodes = map[string]*placement.Node{}
	c.ledger = c.o.Room.reset()
	c.orphans = map[string]map[string]*corev1.Pod{}
	c.parked = map[types.UID]map[string]*corev1.Pod{}
	c.revisions = newRevisionIndex()
	c.acting, c.inFlight = false, 0
}

// awaitFirstEvents lets the loop act once it has been given everything that the informers hold.
func (c *Controller) awaitFirstEvents(ctx context.Context) {
	var synced []cache.InformerSynced
	for i := range c.watched {
		synced = append(synced, c.watched[i].registration.HasSynced)
	}
	err := wait.PollUntilContextCancel(ctx, 2*time.Millisecond, true, func(context.Context) (bool, error) {
		return !slices.ContainsFunc(synced, func(is cache.InformerSynced) bool { return !is() }), nil
	})
	if err != nil {
		return
	}
	c.inbox.put(func() {
		c.acting = true
		for _, d := range c.sets {
			c.syncHistory(d)
		}
	})
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
		for _, f := range c.inbox.take() {
			c.o.Room.hold(f)
		}
		if c.acting {
			c.step(ctx)
		}
	}
}

// untilWakeUp looks at every DaemonSet: there are few, and it costs nothing beside the write it leads to.
func (c *Controller) untilWakeUp() time.Duration {
	now, until := time.Now(), time.Hour
	for _, d := range c.sets {
		if d.wakeUp.IsZero() || d.queued {
			continue
		}
		until = min(until, max(d.wakeUp.Sub(now), 0))
	}
	return until
}

// step asks the queued machines for work and starts it.
func (c *Controller) step(ctx context.Context) {
	now := time.Now()
	for _, d := range c.sets {
		if !d.wakeUp.IsZero() && !d.wakeUp.After(now) {
			c.enqueue(d)
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
		c.o.Room.hold(func() { c.ask(ctx, d, now, room) })
	}
}

// ask starts what a machine wants done.
func (c *Controller) ask(ctx context.Context, d *daemon, now time.Time, room int) {
	actions := d.set.Next(now, room)
	d.wakeUp = actions.WakeUp
	c.perform(ctx, d, &actions)
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
	c.writes.Go(func() { c.inbox.put(write()) })
}

// daemon is one DaemonSet that is managed.
type daemon struct {
	ds  *daemonSet   // as it was last seen or written
	set *machine.Set // nil until the revision of its template is known

	revision   string // hash of the template of generation
	generation int64
	history    historySync

	queued bool
	wakeUp time.Time
	events eventBudget
}
