package controllers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/controllers/daemonset"
	"github.com/everynode/everynode/internal/controllers/housekeeping"
	"github.com/everynode/everynode/internal/controllers/housekeeping/ranges"
	"github.com/everynode/everynode/internal/controllers/join"
	"github.com/everynode/everynode/internal/controllers/nodehealth"
	"github.com/everynode/everynode/internal/controllers/routes"
	machine "github.com/everynode/everynode/internal/decide/nodehealth"
)

// Options say what the controllers work on and with. Zero durations and masks take their defaults.
type Options struct {
	// Config reaches the API server with full rights (the server's loopback configuration).
	Config *rest.Config
	// Informers come from NewInformers, for this term of leadership.
	Informers informers.SharedInformerFactory
	// Writer takes the DaemonSet controller's writes straight to the registries; nil writes
	// through the API.
	Writer daemonset.Writer
	// Room is the ledger of the nodes' room, which the scheduler asks too; nil when none does.
	Room *daemonset.Room
	// Sources are what the DaemonSet controller watches, straight at the registries; nil watches
	// through the API.
	Sources *daemonset.Sources
	// Ranges is the ledger of the nodes' ranges, which the API server asks too; nil when it does not.
	Ranges *ranges.Ledger

	// CAFile and CAKeyFile sign certificates; CAFile is published as kube-root-ca.crt.
	CAFile, CAKeyFile string
	// SAKeyFile signs the tokens of legacy service account Secrets.
	SAKeyFile string

	// ClusterCIDR is divided among the nodes, in ranges of NodeCIDRMaskSize bits (24).
	ClusterCIDR *net.IPNet
	// ServiceCIDR is kept out of the nodes' ranges.
	ServiceCIDR      *net.IPNet
	NodeCIDRMaskSize int

	// NodeMonitorGracePeriod is how late a node's Lease may be before the node is NotReady (40 s).
	NodeMonitorGracePeriod time.Duration
}

// Defaults of Options.
const (
	DefaultNodeCIDRMaskSize       = 24
	DefaultNodeMonitorGracePeriod = machine.DefaultGracePeriod
)

// Validate tells what is missing or wrong; the parts check what only they need.
func (o *Options) Validate() error {
	if o.Config == nil || o.Informers == nil {
		return errors.New("controllers: Config or Informers are missing: they reach the API server through both")
	}
	if o.NodeCIDRMaskSize < 0 || o.NodeMonitorGracePeriod < 0 {
		return errors.New("controllers: NodeCIDRMaskSize and NodeMonitorGracePeriod must not be negative")
	}
	return nil
}

func (o Options) withDefaults() Options {
	if o.NodeCIDRMaskSize == 0 {
		o.NodeCIDRMaskSize = DefaultNodeCIDRMaskSize
	}
	if o.NodeMonitorGracePeriod == 0 {
		o.NodeMonitorGracePeriod = DefaultNodeMonitorGracePeriod
	}
	return o
}

// part is one controller (or, for housekeeping, upstream's set of them), constructed.
type part struct {
	name string
	run  func(context.Context) error
}

// Run runs every controller. It returns nil when ctx is over and all have stopped; when one of
// them fails or ends by itself, it stops the others and returns an error that names it.
func Run(ctx context.Context, o Options) error {
	if err := o.Validate(); err != nil {
		return err
	}
	o = o.withDefaults()
	g, ctx := errgroup.WithContext(ctx)
	if f, ok := o.Informers.(*Informers); ok {
		o.Informers = f.fork()
	}
	broadcaster := record.NewBroadcaster(record.WithContext(ctx), record.WithCorrelatorOptions(record.CorrelatorOptions{
		BurstSize: 100, QPS: 0.5, // an object: what talks here paces itself, and what is dropped here is lost
	}))
	defer broadcaster.Shutdown()

	parts, err := construct(ctx, o, broadcaster)
	if err != nil {
		return fmt.Errorf("controllers: %w", err)
	}
	o.Informers.Start(ctx.Done())
	go reportUnsynced(ctx, o.Informers)
	for _, p := range parts {
		g.Go(func() error { return p.watched(ctx) })
	}
	return g.Wait()
}

// watched runs the part and makes sure that its end is noticed.
func (p part) watched(ctx context.Context) error {
	err := p.run(klog.NewContext(ctx, klog.FromContext(ctx).WithName(p.name)))
	switch {
	case ctx.Err() != nil:
		return nil
	case err == nil:
		return fmt.Errorf("controller %s ended by itself", p.name)
	default:
		return fmt.Errorf("controller %s: %w", p.name, err)
	}
}

// construct makes every part, which registers its handlers with the informers.
func construct(ctx context.Context, o Options, b record.EventBroadcaster) ([]part, error) {
	client, err := newClient(o.Config, "everynode-controllers")
	if err != nil {
		return nil, err
	}
	b.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})

	ds, err := newDaemonSet(o, b)
	if err != nil {
		return nil, err
	}
	j, err := newJoin(o)
	if err != nil {
		return nil, err
	}
	r, err := routes.New(routes.Options{Client: client, Informers: o.Informers, ClusterCIDR: o.ClusterCIDR})
	if err != nil {
		return nil, err
	}
	nh, err := newNodeHealth(o, b)
	if err != nil {
		return nil, err
	}
	h, err := housekeeping.New(ctx, housekeeping.Options{
		Config: o.Config, Informers: o.Informers,
		CAFile: o.CAFile, CAKeyFile: o.CAKeyFile, SAKeyFile: o.SAKeyFile,
		ClusterCIDR: o.ClusterCIDR, ServiceCIDR: o.ServiceCIDR, NodeCIDRMaskSize: o.NodeCIDRMaskSize, Ranges: o.Ranges,
		Recorder: b.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "node-ipam"}),
	})
	if err != nil {
		return nil, err
	}
	return []part{
		{"daemonset", ds.Run},
		{"join", j.Run},
		{"routes", r.Run},
		{"nodehealth", nh.Run},
		{"housekeeping", h.Run},
	}, nil
}

func newDaemonSet(o Options, b record.EventBroadcaster) (*daemonset.Controller, error) {
	const name = "daemonset-controller"
	client, err := newClient(o.Config, name)
	if err != nil {
		return nil, err
	}
	return daemonset.New(daemonset.Options{
		Client: client, Sources: o.Sources, Writer: o.Writer, Room: o.Room,
		Recorder: b.NewRecorder(scheme.Scheme, corev1.EventSource{Component: name}),
	})
}

func newNodeHealth(o Options, b record.EventBroadcaster) (*nodehealth.Controller, error) {
	const name = "node-controller"
	client, err := newClient(o.Config, name)
	if err != nil {
		return nil, err
	}
	return nodehealth.New(nodehealth.Options{
		Client: client, Informers: o.Informers,
		Recorder: b.NewRecorder(scheme.Scheme, corev1.EventSource{Component: name}),
		Patience: machine.Options{GracePeriod: o.NodeMonitorGracePeriod},
	})
}

func newJoin(o Options) (*join.Approver, error) {
	client, err := newClient(o.Config, "join-approver")
	if err != nil {
		return nil, err
	}
	return join.New(join.Options{Client: client, Informers: o.Informers, ServiceCIDR: o.ServiceCIDR})
}

// reportUnsynced says which caches keep the controllers from starting, should that last.
func reportUnsynced(ctx context.Context, f informers.SharedInformerFactory) {
	const patience = 10 * time.Second
	for {
		wait, cancel := context.WithTimeout(ctx, patience)
		synced := f.WaitForCacheSync(wait.Done())
		cancel()
		var late []string
		for kind, ok := range synced {
			if !ok {
				late = append(late, kind.String())
			}
		}
		if len(late) == 0 || ctx.Err() != nil {
			return
		}
		klog.FromContext(ctx).Error(nil, "Controllers wait for caches that do not fill; does the server serve these kinds?", "kinds", late)
	}
}

// newClient makes an unthrottled client that calls itself name.
func newClient(c *rest.Config, name string) (kubernetes.Interface, error) {
	cfg := rest.CopyConfig(c)
	cfg.QPS, cfg.Burst, cfg.RateLimiter = -1, 0, nil
	client, err := kubernetes.NewForConfig(rest.AddUserAgent(cfg, name))
	if err != nil {
		return nil, fmt.Errorf("client of %s: %w", name, err)
	}
	return client, nil
}
