package ranges

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/component-helpers/node/util"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/nodeipam/ipam/cidrset"
)

// ReasonNotAvailable is the reason of the event on a node for which no range is left; upstream's word.
const ReasonNotAvailable = "CIDRNotAvailable"

// Options say what is divided, and among whom.
type Options struct {
	// Nodes is the informer of nodes.
	Nodes coreinformers.NodeInformer
	// Ledger is the one that the API server asks too.
	Ledger *Ledger
	// Client writes to nodes that were created without a range.
	Client kubernetes.Interface
	// Recorder tells on a node that no range is left for it.
	Recorder record.EventRecorder
	// ClusterCIDR is divided into ranges of MaskSize bits. What ServiceCIDR covers of it is left out.
	ClusterCIDR *net.IPNet
	MaskSize    int
	ServiceCIDR *net.IPNet
}

// Controller keeps the Ledger in step with the nodes, for one term, and writes the ranges of nodes that have none.
type Controller struct {
	o      Options
	free   *cidrset.CidrSet
	lister corelisters.NodeLister
	synced cache.InformerSynced
	queue  workqueue.TypedRateLimitingInterface[string]

	mu      sync.Mutex
	waiting map[string]bool // nodes for which no range was left
}

// New makes the Controller of a term, which registers its handler with the informer.
func New(o Options) (*Controller, error) {
	free, err := cidrset.NewCIDRSet(o.ClusterCIDR, o.MaskSize)
	if err != nil {
		return nil, fmt.Errorf("node ranges of /%d in %s: %w", o.MaskSize, o.ClusterCIDR, err)
	}
	if s := o.ServiceCIDR; s != nil && (o.ClusterCIDR.Contains(s.IP) || s.Contains(o.ClusterCIDR.IP)) {
		if err := free.Occupy(s); err != nil {
			return nil, fmt.Errorf("keep the service range %s out of the nodes' ranges: %w", s, err)
		}
	}
	c := &Controller{
		o: o, free: free, lister: o.Nodes.Lister(), waiting: map[string]bool{},
		queue: workqueue.NewTypedRateLimitingQueueWithConfig(workqueue.DefaultTypedControllerRateLimiter[string](),
			workqueue.TypedRateLimitingQueueConfig[string]{Name: "node_ranges"}),
	}
	handle, err := o.Nodes.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { c.see(nil, obj) },
		UpdateFunc: c.see,
		DeleteFunc: c.gone,
	})
	if err != nil {
		return nil, fmt.Errorf("watch nodes: %w", err)
	}
	c.synced = handle.HasSynced
	return c, nil
}

func (c *Controller) see(before, now any) {
	n, ok := now.(*corev1.Node)
	if !ok {
		return
	}
	if len(n.Spec.PodCIDRs) == 0 {
		c.queue.Add(n.Name)
		return
	}
	if old, ok := before.(*corev1.Node); ok && slices.Equal(old.Spec.PodCIDRs, n.Spec.PodCIDRs) {
		return // a heartbeat; ranges never change
	}
	if err := c.o.Ledger.take(c.free, n.Name, n.Spec.PodCIDRs); err != nil {
		klog.ErrorS(err, "A node has a range that is not of this cluster; was --cluster-cidr changed?", "node", n.Name, "clusterCIDR", c.o.ClusterCIDR)
	}
}

func (c *Controller) gone(obj any) {
	if t, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = t.Obj
	}
	n, ok := obj.(*corev1.Node)
	if !ok {
		return
	}
	for _, s := range n.Spec.PodCIDRs {
		if cidr, err := parse(s); err == nil {
			_ = c.free.Release(cidr) // one that is not of this cluster was never taken
		}
	}
	c.freed()
}

// Run gives ranges away until ctx, the term of leadership, is over.
func (c *Controller) Run(ctx context.Context) {
	defer c.queue.ShutDown()
	if !cache.WaitForCacheSync(ctx.Done(), c.synced) {
		return
	}
	c.o.Ledger.open(ctx, c.free)
	defer c.o.Ledger.close()
	defer context.AfterFunc(ctx, c.queue.ShutDown)()
	for c.next(ctx) {
	}
}

func (c *Controller) next(ctx context.Context) bool {
	name, shutdown := c.queue.Get()
	if shutdown {
		return false
	}
	defer c.queue.Done(name)
	if err := c.give(ctx, name); err != nil && ctx.Err() == nil {
		klog.FromContext(ctx).Error(err, "Giving a node its range of pod addresses; trying again", "node", name)
		c.queue.AddRateLimited(name)
		return true
	}
	c.queue.Forget(name)
	return true
}

// give writes a range to a node that has none.
func (c *Controller) give(ctx context.Context, name string) error {
	n, err := c.lister.Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("node %s: %w", name, err)
	}
	if len(n.Spec.PodCIDRs) > 0 || n.DeletionTimestamp != nil {
		return nil
	}
	_, err = c.o.Ledger.with(ctx, name, func(ctx context.Context, cidr string) error {
		return util.PatchNodeCIDRs(ctx, c.o.Client, types.NodeName(name), []string{cidr})
	})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case errors.Is(err, cidrset.ErrCIDRRangeNoCIDRsRemaining):
		c.o.Recorder.Eventf(n, corev1.EventTypeWarning, ReasonNotAvailable,
			"No range of pod addresses is left: %s has no free /%d. Delete nodes that are gone, or give the server a larger --cluster-cidr", c.o.ClusterCIDR, c.o.MaskSize)
		c.wait(name)
	}
	return err
}

// wait keeps a node in mind for which no range was left.
func (c *Controller) wait(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting[name] = true
}

// freed has the nodes that wait looked at again; as many as there are ranges get one.
func (c *Controller) freed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name := range c.waiting {
		c.queue.Add(name)
	}
	clear(c.waiting)
}
