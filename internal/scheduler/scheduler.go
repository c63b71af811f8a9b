package scheduler

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	upstream "k8s.io/kubernetes/pkg/scheduler"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/latest"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/names"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	"k8s.io/kubernetes/pkg/scheduler/profile"
)

// userAgent is how the scheduler calls itself towards the API server.
const userAgent = "everynode-scheduler"

// Options say what the scheduler works on.
type Options struct {
	// Config reaches the API server with full rights.
	Config *rest.Config
	// Informers are shared with the controllers (controllers.NewInformers); the scheduler adds its
	// handlers and starts what is not started.
	Informers informers.SharedInformerFactory
	// Room is the ledger that the DaemonSet controller promises the nodes' room by; nil when the scheduler is the only
	// one who places pods.
	Room Room
}

// Validate tells what is missing.
func (o *Options) Validate() error {
	var errs []error
	if o.Config == nil {
		errs = append(errs, errors.New("Config is missing: the scheduler binds pods through the API server"))
	}
	if o.Informers == nil {
		errs = append(errs, errors.New("Informers are missing"))
	}
	return errors.Join(errs...)
}

// Scheduler is upstream's scheduler, wired and ready to run.
type Scheduler struct {
	informers   informers.SharedInformerFactory
	broadcaster events.EventBroadcaster
	upstream    *upstream.Scheduler
}

// New wires the scheduler and registers its handlers with the informers. Some of its goroutines
// begin here; they end with ctx, which must be the context given to Run or its parent.
func New(ctx context.Context, o Options) (*Scheduler, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("scheduler options: %w", err)
	}
	cfg := rest.CopyConfig(o.Config)
	cfg.QPS, cfg.Burst, cfg.RateLimiter = -1, 0, nil
	client, err := kubernetes.NewForConfig(rest.AddUserAgent(cfg, userAgent))
	if err != nil {
		return nil, fmt.Errorf("client of the scheduler: %w", err)
	}
	return newScheduler(ctx, client, o.Informers, o.Room)
}

func newScheduler(ctx context.Context, client kubernetes.Interface, shared informers.SharedInformerFactory, room Room) (*Scheduler, error) {
	profiles, err := profiles(room != nil)
	if err != nil {
		return nil, fmt.Errorf("scheduler: default profile: %w", err)
	}
	b := events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})
	plugins := frameworkruntime.Registry{}
	if room != nil {
		plugins[roomName] = sharedRoomFactory(room)
	}
	s, err := upstream.New(ctx, client, view{shared}, nil, profile.NewRecorderFactory(b),
		upstream.WithProfiles(profiles...), upstream.WithFrameworkOutOfTreeRegistry(plugins))
	if err != nil {
		b.Shutdown()
		return nil, fmt.Errorf("scheduler: %w", err)
	}
	return &Scheduler{informers: shared, broadcaster: b, upstream: s}, nil
}

// profiles is upstream's default profile, with the shared room, but for one step. A pod whose resource claim does not
// exist is held back before it enters the queue, where nothing is said about it, until the claim
// appears. Claims are not served, so it never does; without the step, the pod is tried, and a
// FailedScheduling event names the claim.
func profiles(shareRoom bool) ([]config.KubeSchedulerProfile, error) {
	c, err := latest.Default()
	if err != nil {
		return nil, err
	}
	for i := range c.Profiles {
		before := &c.Profiles[i].Plugins.PreEnqueue
		before.Disabled = append(before.Disabled, config.Plugin{Name: names.DynamicResources})
		if shareRoom {
			all := &c.Profiles[i].Plugins.MultiPoint
			all.Enabled = append(all.Enabled, config.Plugin{Name: roomName})
		}
	}
	return c.Profiles, nil
}

// Run schedules until ctx is over, and returns nil then. It begins when the caches and the
// scheduler's own state hold everything that existed at the start.
func (s *Scheduler) Run(ctx context.Context) error {
	ctx = klog.NewContext(ctx, klog.FromContext(ctx).WithName("scheduler"))
	defer s.broadcaster.Shutdown()
	if err := s.broadcaster.StartRecordingToSinkWithContext(ctx); err != nil {
		return fmt.Errorf("scheduler: recording events: %w", err)
	}

	s.informers.Start(ctx.Done())
	s.informers.WaitForCacheSync(ctx.Done())
	if err := s.upstream.WaitForHandlersSync(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("scheduler: waiting for its caches: %w", err)
	}
	s.upstream.Run(ctx)
	if ctx.Err() == nil {
		return errors.New("scheduler ended by itself")
	}
	return nil
}

// Run wires a scheduler and runs it until ctx is over.
func Run(ctx context.Context, o Options) error {
	s, err := New(ctx, o)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}
