package routes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/sleep"
)

const (
	namePrefix     = "node-routes-"
	managedByLabel = "app.kubernetes.io/managed-by"
	managedBy      = "everynode"

	// clusterCIDRAnnotation on each ConfigMap is the range that all pods are in: what a node neither
	// masquerades nor sends to the world.
	clusterCIDRAnnotation = "everynode.io/cluster-cidr"

	// gather is how long events are gathered before their ConfigMaps are written.
	gather = 50 * time.Millisecond
	// retry is the pause after a failed write.
	retry = time.Second
)

// Options say what is published, and with what.
type Options struct {
	Client kubernetes.Interface
	// Informers give the Nodes; they are shared with the other controllers.
	Informers informers.SharedInformerFactory
	// ClusterCIDR is what the nodes' ranges are cut from.
	ClusterCIDR *net.IPNet
}

// Validate tells what is missing or wrong.
func (o *Options) Validate() error {
	var errs []error
	if o.Client == nil {
		errs = append(errs, errors.New("Client is missing"))
	}
	if o.Informers == nil {
		errs = append(errs, errors.New("Informers are missing"))
	}
	if _, err := prefix(o.ClusterCIDR); err != nil {
		errs = append(errs, fmt.Errorf("ClusterCIDR: %w", err))
	}
	return errors.Join(errs...)
}

func prefix(n *net.IPNet) (netip.Prefix, error) {
	if n == nil {
		return netip.Prefix{}, errors.New("is missing: node ranges are numbered within it")
	}
	return netip.ParsePrefix(n.String())
}

// Controller keeps the ConfigMaps at what the table wants.
type Controller struct {
	client kubernetes.Interface
	nodes  cache.SharedIndexInformer
	own    informers.SharedInformerFactory // of our namespace
	wake   chan struct{}

	mu    sync.Mutex
	table *table
	// stored is each chunk's ConfigMap as last seen: by the informer, or in the answer to a write.
	stored map[int]*corev1.ConfigMap
	// dirty are the chunks to look at in the next write.
	dirty map[int]bool

	nodesSynced, mapsSynced cache.InformerSynced
}

// New makes the controller and registers its handlers with the informers.
func New(o Options) (*Controller, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("routes options: %w", err)
	}
	cluster, _ := prefix(o.ClusterCIDR) // valid, see above
	c := &Controller{
		client: o.Client,
		nodes:  o.Informers.Core().V1().Nodes().Informer(),
		own:    informers.NewSharedInformerFactoryWithOptions(o.Client, 0, informers.WithNamespace(Namespace)),
		wake:   make(chan struct{}, 1),
		table:  newTable(cluster),
		stored: map[int]*corev1.ConfigMap{},
		dirty:  map[int]bool{},
	}
	if err := c.register(); err != nil {
		return nil, fmt.Errorf("routes: %w", err)
	}
	return c, nil
}

func (c *Controller) register() error {
	nodes, err := c.nodes.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { c.nodeChanged(o.(*corev1.Node)) },
		UpdateFunc: func(_, o any) { c.nodeChanged(o.(*corev1.Node)) },
		DeleteFunc: func(o any) {
			if key, err := cache.DeletionHandlingObjectToName(o); err == nil {
				c.nodeGone(key.Name)
			}
		},
	})
	if err != nil {
		return err
	}
	c.nodesSynced = nodes.HasSynced
	configMaps, err := c.own.Core().V1().ConfigMaps().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { c.mapChanged(o.(*corev1.ConfigMap)) },
		UpdateFunc: func(_, o any) { c.mapChanged(o.(*corev1.ConfigMap)) },
		DeleteFunc: c.mapGone,
	})
	if err != nil {
		return err
	}
	c.mapsSynced = configMaps.HasSynced
	return nil
}

// Run makes the namespace and the access rules, and then keeps the ConfigMaps current until ctx is
// over; it returns nil then. The Nodes' informer is started by whoever made it.
func (c *Controller) Run(ctx context.Context) error {
	logger := klog.FromContext(ctx)
	for {
		err := ensureAccess(ctx, c.client)
		if err == nil {
			break
		}
		logger.Error(err, "Could not give the nodes access to the routes; trying again", "after", retry)
		if !sleep.For(ctx, retry) {
			return nil
		}
	}
	c.own.Start(ctx.Done())
	defer c.own.Shutdown()
	if !cache.WaitForCacheSync(ctx.Done(), c.nodesSynced, c.mapsSynced) {
		return nil
	}
	return c.loop(ctx, logger)
}

// loop writes once after each burst of events.
func (c *Controller) loop(ctx context.Context, logger klog.Logger) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
		}
		if !sleep.For(ctx, gather) {
			return nil
		}
		if err := c.write(ctx); err != nil && ctx.Err() == nil {
			logger.Error(err, "Could not publish all routes; trying again", "after", retry)
			if !sleep.For(ctx, retry) {
				return nil
			}
			c.wakeUp()
		}
	}
}

func (c *Controller) nodeChanged(n *corev1.Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mark(c.table.set(n)...)
}

func (c *Controller) nodeGone(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mark(c.table.remove(name)...)
}

// mapChanged remembers what is stored, and looks at the chunk again if it is not what is wanted:
// at the start, and when somebody else wrote it.
func (c *Controller) mapChanged(m *corev1.ConfigMap) {
	chunk, ok := chunkNamed(m.Name)
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if older(m, c.stored[chunk]) {
		return
	}
	c.stored[chunk] = m
	if !c.holds(m, c.table.chunks[chunk]) {
		c.mark(chunk)
	}
}

func (c *Controller) mapGone(o any) {
	if t, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = t.Obj
	}
	m, ok := o.(*corev1.ConfigMap)
	if !ok {
		return
	}
	chunk, ok := chunkNamed(m.Name)
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if have := c.stored[chunk]; have == nil || have.UID != m.UID {
		return // our own deletion, or of one before
	}
	delete(c.stored, chunk)
	c.mark(chunk)
}

// mark has the chunks written soon. The caller holds mu.
func (c *Controller) mark(chunks ...int) {
	if len(chunks) == 0 {
		return
	}
	for _, i := range chunks {
		c.dirty[i] = true
	}
	c.wakeUp()
}

func (c *Controller) wakeUp() {
	select {
	case c.wake <- struct{}{}:
	default: // a wake-up is pending already
	}
}

// write brings every dirty chunk to what the table wants. Chunks that failed stay dirty.
func (c *Controller) write(ctx context.Context) error {
	c.mu.Lock()
	chunks := slices.Sorted(maps.Keys(c.dirty))
	c.mu.Unlock()
	var errs []error
	for _, chunk := range chunks {
		want, have := c.take(chunk)
		now, err := c.put(ctx, chunk, want, have)
		if err != nil {
			errs = append(errs, fmt.Errorf("ConfigMap %s/%s: %w", Namespace, nameOf(chunk), err))
		}
		c.settle(chunk, now, err)
	}
	return errors.Join(errs...)
}

// take returns a chunk's wanted and stored contents; what changes from now on marks it dirty again.
func (c *Controller) take(chunk int) (map[string]string, *corev1.ConfigMap) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.dirty, chunk)
	return maps.Clone(c.table.chunks[chunk]), c.stored[chunk]
}

// settle records the outcome of a put.
func (c *Controller) settle(chunk int, now *corev1.ConfigMap, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.dirty[chunk] = true
	}
	switch {
	case now == nil:
		delete(c.stored, chunk)
	case !older(now, c.stored[chunk]):
		c.stored[chunk] = now
	}
}

// put makes the stored ConfigMap hold what is wanted, and returns what is stored afterwards, as far
// as known: nil when there is none. After a conflict that is the other's version, read anew.
func (c *Controller) put(ctx context.Context, chunk int, want map[string]string, have *corev1.ConfigMap) (*corev1.ConfigMap, error) {
	api, name := c.client.CoreV1().ConfigMaps(Namespace), nameOf(chunk)
	var now *corev1.ConfigMap
	var err error
	switch {
	case have == nil && len(want) == 0:
		return nil, nil
	case have == nil:
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: name, Labels: ownLabels()}}
		now, err = api.Create(ctx, c.fill(m, want), metav1.CreateOptions{})
	case len(want) == 0:
		err = api.Delete(ctx, name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(have.UID))})
	case c.holds(have, want):
		return have, nil
	default:
		now, err = api.Update(ctx, c.fill(have.DeepCopy(), want), metav1.UpdateOptions{})
	}
	switch {
	case err == nil:
		return now, nil
	case apierrors.IsNotFound(err) && len(want) == 0:
		return nil, nil
	case apierrors.IsNotFound(err):
		return nil, err
	case apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err):
		if m, getErr := api.Get(ctx, name, metav1.GetOptions{}); getErr == nil {
			return m, err
		}
	}
	return have, err
}

// fill makes m say what is wanted.
func (c *Controller) fill(m *corev1.ConfigMap, want map[string]string) *corev1.ConfigMap {
	m.Data, m.BinaryData = want, nil
	metav1.SetMetaDataAnnotation(&m.ObjectMeta, clusterCIDRAnnotation, c.table.cluster.String())
	return m
}

// holds tells whether m says what is wanted, and nothing else.
func (c *Controller) holds(m *corev1.ConfigMap, want map[string]string) bool {
	return len(m.BinaryData) == 0 && equality.Semantic.DeepEqual(m.Data, want) &&
		m.Annotations[clusterCIDRAnnotation] == c.table.cluster.String()
}

// older tells whether a is an earlier version of b.
func older(a, b *corev1.ConfigMap) bool {
	if a == nil || b == nil || a.UID != b.UID {
		return false
	}
	order, err := resourceversion.CompareResourceVersion(a.ResourceVersion, b.ResourceVersion)
	return err == nil && order < 0
}

// chunkNamed is the chunk whose ConfigMap has this name.
func chunkNamed(name string) (int, bool) {
	number, ok := strings.CutPrefix(name, namePrefix)
	if !ok {
		return 0, false
	}
	chunk, err := strconv.Atoi(number)
	return chunk, err == nil && chunk >= 0 && nameOf(chunk) == name
}
