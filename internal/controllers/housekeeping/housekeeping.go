package housekeeping

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/controllers/housekeeping/ranges"
)

// Options say what the controllers work on and with.
type Options struct {
	// Config reaches the API server with full rights (the server's loopback configuration).
	Config *rest.Config
	// Informers are shared with the other controllers and the scheduler. Kinds which the server
	// does not serve must be present as empty informers (controllers.NewInformers).
	Informers informers.SharedInformerFactory

	// CAFile and CAKeyFile sign the nodes' certificates; CAFile is published as kube-root-ca.crt.
	CAFile, CAKeyFile string
	// SAKeyFile signs the tokens in Secrets of type kubernetes.io/service-account-token.
	SAKeyFile string

	// ClusterCIDR is divided among the nodes in ranges of NodeCIDRMaskSize bits.
	ClusterCIDR *net.IPNet
	// NodeCIDRMaskSize is the length of a node's range: 24 gives it 254 pod addresses.
	NodeCIDRMaskSize int
	// Ranges gives the nodes' ranges away; the API server that creates nodes asks it too. Nil: none does.
	Ranges *ranges.Ledger
	// Recorder tells on a node that no range is left for it.
	Recorder record.EventRecorder
	// ServiceCIDR is left out of the nodes' ranges where it overlaps ClusterCIDR.
	ServiceCIDR *net.IPNet

	// CertificateTTL bounds the life of a certificate signed for a node; zero means a year.
	CertificateTTL time.Duration
}

// Validate tells what is missing or wrong.
func (o *Options) Validate() error {
	var errs []error
	if o.Config == nil {
		errs = append(errs, errors.New("Config is missing: housekeeping needs the API server's loopback configuration"))
	}
	if o.Informers == nil {
		errs = append(errs, errors.New("Informers are missing"))
	}
	for name, file := range map[string]string{"CAFile": o.CAFile, "CAKeyFile": o.CAKeyFile, "SAKeyFile": o.SAKeyFile} {
		if file == "" {
			errs = append(errs, fmt.Errorf("%s is missing", name))
		}
	}
	if o.Recorder == nil {
		errs = append(errs, errors.New("Recorder is missing"))
	}
	if o.ClusterCIDR == nil {
		errs = append(errs, errors.New("ClusterCIDR is missing: nodes get their pod addresses from it"))
	} else if ones, bits := o.ClusterCIDR.Mask.Size(); o.NodeCIDRMaskSize < ones || o.NodeCIDRMaskSize > bits {
		errs = append(errs, fmt.Errorf("NodeCIDRMaskSize %d is not between %d (the cluster CIDR's) and %d", o.NodeCIDRMaskSize, ones, bits))
	}
	return errors.Join(errs...)
}

// Set is the table of controllers, constructed and ready to run.
type Set struct {
	env     *environment
	running []running
}

type running struct {
	name string
	run  func(context.Context)
}

// environment is what a row of the table constructs its controller from.
type environment struct {
	Options
	clients  *clients
	mapper   *restmapper.DeferredDiscoveryRESTMapper
	metadata metadatainformer.SharedInformerFactory
	// own are informers which nobody else needs.
	own []informers.SharedInformerFactory
	// started is closed once the informers run; the garbage collector waits for it.
	started chan struct{}
}

// New constructs every controller of the table, which registers their handlers with the shared
// informers; the caller starts those (Run does too). ctx is the term's: some controllers keep it.
func New(ctx context.Context, o Options) (*Set, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("housekeeping options: %w", err)
	}
	env, err := newEnvironment(o)
	if err != nil {
		return nil, fmt.Errorf("housekeeping: %w", err)
	}
	s := &Set{env: env}
	for _, c := range Controllers() {
		run, err := c.build(klog.NewContext(ctx, klog.FromContext(ctx).WithName(c.Name)), env)
		if err != nil {
			return nil, fmt.Errorf("housekeeping: constructing controller %s: %w", c.Name, err)
		}
		s.running = append(s.running, running{c.Name, run})
	}
	return s, nil
}

func newEnvironment(o Options) (*environment, error) {
	c, err := newClients(o.Config)
	if err != nil {
		return nil, err
	}
	d, err := c.discovery("discovery")
	if err != nil {
		return nil, err
	}
	m, err := c.metadata("metadata-informers")
	if err != nil {
		return nil, err
	}
	return &environment{
		Options: o,
		clients: c,
		// Resets itself when a kind is not found; the garbage collector resets it when discovery changes.
		mapper:   restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(d)),
		metadata: metadatainformer.NewSharedInformerFactoryWithOptions(m, 0, metadatainformer.WithTransform(trim)),
		started:  make(chan struct{}),
	}, nil
}

// Run starts the informers and every controller, and returns when all have stopped: nil when ctx
// is over, else an error that names the controller which ended by itself.
func (s *Set) Run(ctx context.Context) error {
	s.env.Informers.Start(ctx.Done())
	s.env.metadata.Start(ctx.Done())
	for _, f := range s.env.own {
		f.Start(ctx.Done())
	}
	close(s.env.started)

	g, ctx := errgroup.WithContext(ctx)
	for _, r := range s.running {
		g.Go(func() error {
			logger := klog.FromContext(ctx).WithName(r.name)
			r.run(klog.NewContext(ctx, logger))
			if ctx.Err() == nil {
				return fmt.Errorf("controller %s ended by itself", r.name)
			}
			return nil
		})
	}
	err := g.Wait()
	s.env.metadata.Shutdown()
	for _, f := range s.env.own {
		f.Shutdown()
	}
	return err
}
