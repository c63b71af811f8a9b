package election

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/sleep"
)

// The Lease that is campaigned for.
const (
	LeaseNamespace = metav1.NamespaceSystem
	LeaseName      = "everynode-controllers"
)

// The times of the election; upstream's defaults for control plane components.
const (
	// LeaseDuration is how long the others wait for a holder that does not renew.
	LeaseDuration = 15 * time.Second
	// RenewDeadline is how long the holder tries to renew before it gives up leading.
	RenewDeadline = 10 * time.Second
	// RetryPeriod is the pause between two tries to acquire or renew.
	RetryPeriod = 2 * time.Second

	// leadWithoutRenewal is how long after its last renewal began a holder leads at most: it renews
	// again after RetryPeriod, and tries for RenewDeadline.
	leadWithoutRenewal = RetryPeriod + RenewDeadline
	// slowStop is what is left for the led work to stop before anyone else may lead.
	slowStop = LeaseDuration - leadWithoutRenewal
	// releaseTimeout bounds the release of the Lease; the server may be going away.
	releaseTimeout = 2 * time.Second

	minBackoff = time.Second
	maxBackoff = 30 * time.Second
)

// Run campaigns for the Lease as identity and calls lead each time it is acquired. lead's context
// ends when the Lease is lost or ctx is over; lead must then return soon. When lead returns
// otherwise, that is a failure: it is logged, the Lease released, and after a back-off (1 s to
// 30 s) campaigned for again, so that this server or another one starts the work anew.
//
// Run returns nil when ctx is over and lead has returned, and an error only for unusable arguments.
func Run(ctx context.Context, client kubernetes.Interface, identity string, lead func(context.Context) error) error {
	if client == nil || identity == "" || lead == nil {
		return errors.New("leader election needs a client, an identity and the work to lead")
	}
	logger := klog.FromContext(ctx).WithName("election").WithValues("identity", identity)
	backoff := minBackoff
	for {
		began := time.Now()
		err := term(ctx, logger, client, identity, lead)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > 2*maxBackoff {
			backoff = minBackoff
		}
		if err != nil {
			logger.Error(err, "Led work failed; campaigning again", "after", backoff)
		} else {
			logger.Info("Lost the lease; campaigning again", "after", backoff)
		}
		if !sleep.For(ctx, backoff) {
			return nil
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// term is one campaign and, once the Lease is acquired, one leadership. It returns lead's error.
func term(ctx context.Context, logger klog.Logger, client kubernetes.Interface, identity string, lead func(context.Context) error) error {
	t := &leadership{ctx: ctx, lead: lead} // the led work does not log in our name
	ctx = klog.NewContext(ctx, logger)
	if err := awaitNamespace(ctx, client); err != nil {
		return err
	}
	// The elector outlives ctx: it holds the Lease until the led work has returned.
	hold, resign := context.WithCancel(context.WithoutCancel(ctx))
	defer resign()
	t.resign = resign
	defer context.AfterFunc(ctx, t.withdraw)()

	t.overdue = time.AfterFunc(leadWithoutRenewal, t.depose)
	defer t.overdue.Stop()
	elector, err := newElector(watchedLock{lock(client, identity), t.renewed}, t.start, logger)
	if err != nil {
		return fmt.Errorf("leader election: %w", err)
	}
	elector.Run(hold)
	err = t.wait(logger)
	release(ctx, lock(client, identity))
	return err
}

// newElector leaves the release of the Lease to its caller: the elector would do it when the Lease
// is lost too, before it ends the led work's context, and may block on the lost server meanwhile.
func newElector(l resourcelock.Interface, start func(context.Context), logger klog.Logger) (*leaderelection.LeaderElector, error) {
	return leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock:          l,
		LeaseDuration: LeaseDuration,
		RenewDeadline: RenewDeadline,
		RetryPeriod:   RetryPeriod,
		Name:          LeaseName,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: start,
			OnStoppedLeading: func() {},
			OnNewLeader: func(holder string) {
				if holder != l.Identity() {
					logger.Info("Another server leads", "holder", holder)
				}
			},
		},
	})
}

// release gives the Lease up, if it is held, so that the next leader need not wait for its end.
func release(ctx context.Context, l resourcelock.Interface) {
	logger := klog.FromContext(ctx)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	record, _, err := l.Get(ctx)
	if err == nil && record.HolderIdentity == l.Identity() {
		now := metav1.Now()
		err = l.Update(ctx, resourcelock.LeaderElectionRecord{
			LeaseDurationSeconds: 1, LeaderTransitions: record.LeaderTransitions, AcquireTime: now, RenewTime: now})
	}
	if err != nil && !apierrors.IsNotFound(err) {
		logger.Info("Could not release the lease; others wait until it expires", "err", err)
	}
}

// leadership joins the elector's callbacks, which run on goroutines of their own, with the led work.
type leadership struct {
	ctx    context.Context // Run's
	lead   func(context.Context) error
	resign context.CancelFunc

	// overdue ends the led work when the Lease was not renewed in time, even if the elector is stuck
	// in a request that hangs.
	overdue *time.Timer

	mu        sync.Mutex
	withdrawn bool
	stop      context.CancelFunc // ends the led work's context
	ended     chan struct{}      // nil until the work starts
	err       error
}

// start runs the led work until held is over (the Lease is lost) or the caller's context is.
func (t *leadership) start(held context.Context) {
	defer t.resign()
	t.mu.Lock()
	if t.withdrawn || held.Err() != nil {
		t.mu.Unlock()
		return
	}
	ctx, stop := context.WithCancel(t.ctx)
	defer stop()
	t.stop, t.ended = stop, make(chan struct{})
	t.mu.Unlock()
	defer close(t.ended)

	defer context.AfterFunc(held, stop)()
	err := t.lead(ctx)
	if ctx.Err() == nil { // nobody asked it to end
		if err == nil {
			err = errors.New("led work returned by itself")
		}
		t.err = err
	}
}

// renewed puts the end of the term off; since is when the renewal began.
func (t *leadership) renewed(since time.Time) {
	t.overdue.Reset(time.Until(since.Add(leadWithoutRenewal)))
}

// depose ends the led work, if any. The elector, when it wakes up, finds that it has resigned.
func (t *leadership) depose() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stop != nil {
		t.stop()
	}
}

// withdraw ends a campaign that has not led yet. Led work, once started, resigns when it returns.
func (t *leadership) withdraw() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended == nil {
		t.withdrawn = true
		t.resign()
	}
}

// wait returns when the led work has: never are there two of them in one process.
func (t *leadership) wait(logger klog.Logger) error {
	t.mu.Lock()
	t.withdrawn = true // a start callback that comes late does nothing
	ended := t.ended
	t.mu.Unlock()
	if ended == nil {
		return nil
	}
	for slow := time.NewTimer(slowStop); ; {
		select {
		case <-ended:
			slow.Stop()
			return t.err
		case <-slow.C:
			logger.Error(nil, "Led work is still stopping; no new campaign before it has", "since", slowStop)
		}
	}
}

// watchedLock reports each time the Lease was written.
type watchedLock struct {
	resourcelock.Interface
	renewed func(since time.Time)
}

func (l watchedLock) Create(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	return l.watch(func() error { return l.Interface.Create(ctx, r) })
}

func (l watchedLock) Update(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	return l.watch(func() error { return l.Interface.Update(ctx, r) })
}

func (l watchedLock) watch(write func() error) error {
	since := time.Now()
	err := write()
	if err == nil {
		l.renewed(since)
	}
	return err
}

func lock(client kubernetes.Interface, identity string) resourcelock.Interface {
	return &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: LeaseNamespace, Name: LeaseName},
		Client:     client.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
	}
}

// awaitNamespace waits for the Lease's namespace. On a store's first start it appears moments
// after the server answers; the elector would lose RetryPeriod over that.
func awaitNamespace(ctx context.Context, client kubernetes.Interface) error {
	logger := klog.FromContext(ctx)
	pause := 20 * time.Millisecond
	for {
		_, err := client.CoreV1().Namespaces().Get(ctx, LeaseNamespace, metav1.GetOptions{})
		switch {
		case err == nil, ctx.Err() != nil:
			return ctx.Err()
		case apierrors.IsNotFound(err):
			logger.V(2).Info("Waiting for the namespace of the lease", "namespace", LeaseNamespace)
		default:
			logger.Info("Cannot campaign yet", "err", err)
		}
		if !sleep.For(ctx, pause) {
			return ctx.Err()
		}
		pause = min(2*pause, RetryPeriod)
	}
}
