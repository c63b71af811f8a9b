package controllers

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/informers/internalinterfaces"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/everynode/everynode/internal/decide/nodehealth"
)

// Informers are the caches of one term of leadership. They are a view of a factory which lives
// longer (the API server's own, so that each object is held in memory once), and differ from it in
// three ways:
//
//   - Handlers registered through the view hear nothing before Start, even when the informers below
//     have long been running. Upstream's constructors register handlers of controllers that are
//     only half made, and rely on that.
//   - Handlers registered through the view are removed when the term is over. Upstream's
//     controllers never remove theirs; without that, a server that lost and regained the Lease
//     would feed the controllers of all its terms.
//   - A kind which the server does not serve is an informer that has synced with nothing.
//     Upstream's controllers and scheduler watch some kinds unconditionally (StatefulSets,
//     ReplicationControllers, those of dynamic resource allocation, whose feature gate is locked
//     on since 1.35); a real informer of such a kind would never sync, and all who wait for it
//     would wait forever.
//
// An object from an informer is read-only, and carries no managedFields.
type Informers struct {
	groups // the typed accessors, all of which end in InformerFor

	shared informers.SharedInformerFactory
	life   context.Context // the shared factory's
	term   context.Context
	served sets.Set[schema.GroupVersionKind]

	end  context.CancelFunc // of life, if that is ours to end
	open chan struct{}      // closed by Start; see gate

	mu      sync.Mutex
	tracked map[cache.SharedIndexInformer]*termInformer // by the informer below
	absent  map[reflect.Type]cache.SharedIndexInformer
	running map[reflect.Type]bool // of absent
}

var _ informers.SharedInformerFactory = (*Informers)(nil)

// NewInformers makes the informers of a term on a factory of their own, which ends with the term.
// That is for a process which has no other caches.
func NewInformers(term context.Context, c *rest.Config) (*Informers, error) {
	client, err := newClient(c, "shared-informers")
	if err != nil {
		return nil, err
	}
	life, end := context.WithCancel(term)
	f, err := share(term, life, informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(trim)), client.Discovery())
	if err != nil {
		end()
		return nil, err
	}
	f.end = end
	return f, nil
}

// ShareInformers makes the informers of a term on a factory that others use too: the API server's.
// Its informers run as long as life, which must last longer than the term.
func ShareInformers(term, life context.Context, shared informers.SharedInformerFactory, c *rest.Config) (*Informers, error) {
	client, err := newClient(c, "shared-informers")
	if err != nil {
		return nil, err
	}
	return share(term, life, shared, client.Discovery())
}

// share makes the view. Nothing is started: each user of the informers registers its handlers
// first and then calls Start, which may be called again.
func share(term, life context.Context, shared informers.SharedInformerFactory, d discovery.DiscoveryInterface) (*Informers, error) {
	served, err := servedKinds(d)
	if err != nil {
		return nil, err
	}
	return newInformers(term, life, shared, served), nil
}

func newInformers(term, life context.Context, shared informers.SharedInformerFactory, served sets.Set[schema.GroupVersionKind]) *Informers {
	f := &Informers{
		shared: shared, life: life, term: term, served: served,
		open:    make(chan struct{}),
		tracked: map[cache.SharedIndexInformer]*termInformer{},
		absent:  map[reflect.Type]cache.SharedIndexInformer{},
		running: map[reflect.Type]bool{},
	}
	f.groups = groups{f}
	context.AfterFunc(term, f.removeHandlers)
	return f
}

// fork is a view of the same informers with a Start of its own, so that the scheduler's does not
// let events into controllers which are still being constructed.
func (f *Informers) fork() *Informers { return newInformers(f.term, f.life, f.shared, f.served) }

// InformerFor implements informers.SharedInformerFactory.
func (f *Informers) InformerFor(obj runtime.Object, newFunc internalinterfaces.NewInformerFunc) cache.SharedIndexInformer {
	f.mu.Lock()
	defer f.mu.Unlock()
	kind := reflect.TypeOf(obj)
	if !f.serves(obj) {
		if f.absent[kind] == nil {
			f.absent[kind] = cache.NewSharedIndexInformer(emptySource{}, obj, 0,
				cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
		}
		return f.absent[kind]
	}
	return f.track(f.shared.InformerFor(obj, newFunc))
}

func (f *Informers) serves(obj runtime.Object) bool {
	kinds, _, err := scheme.Scheme.ObjectKinds(obj)
	return err == nil && len(kinds) > 0 && f.served.Has(kinds[0])
}

// ForResource implements informers.SharedInformerFactory.
func (f *Informers) ForResource(r schema.GroupVersionResource) (informers.GenericInformer, error) {
	g, err := f.shared.ForResource(r)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return genericInformer{g, f.track(g.Informer())}, nil
}

// track wraps an informer of the shared factory, once. The caller holds mu.
func (f *Informers) track(i cache.SharedIndexInformer) *termInformer {
	if f.tracked[i] == nil {
		f.tracked[i] = &termInformer{SharedIndexInformer: i, open: f.open, term: f.term}
	}
	return f.tracked[i]
}

type genericInformer struct {
	informers.GenericInformer
	informer *termInformer
}

func (g genericInformer) Informer() cache.SharedIndexInformer { return g.informer }

// InformerName implements informers.SharedInformerFactory.
func (f *Informers) InformerName() *cache.InformerName { return f.shared.InformerName() }

// Start implements informers.SharedInformerFactory: it starts what is not running and lets events
// pass. The channel is of no account: what is shared runs as long as the factory below, what is
// not as long as the term.
func (f *Informers) Start(<-chan struct{}) {
	f.shared.StartWithContext(f.life)
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-f.open:
	default:
		close(f.open)
	}
	for kind, i := range f.absent {
		if !f.running[kind] {
			f.running[kind] = true
			go i.RunWithContext(f.term)
		}
	}
}

// StartWithContext implements informers.SharedInformerFactory; see Start.
func (f *Informers) StartWithContext(ctx context.Context) { f.Start(ctx.Done()) }

// Shutdown implements informers.SharedInformerFactory: it removes what the term added. Informers
// that are the term's own it ends, and waits for that.
func (f *Informers) Shutdown() {
	f.removeHandlers()
	if f.end != nil {
		f.end()
		f.shared.Shutdown()
	}
}

// trim drops managedFields, which nobody reads in a cache, before an object enters it, and of a node's lease
// all but its time.
func trim(obj any) (any, error) {
	if m, err := meta.Accessor(obj); err == nil && m.GetManagedFields() != nil {
		m.SetManagedFields(nil)
	}
	if l, ok := obj.(*coordinationv1.Lease); ok {
		nodehealth.TrimLease(l)
	}
	return obj, nil
}

// WaitForCacheSync implements informers.SharedInformerFactory.
func (f *Informers) WaitForCacheSync(stop <-chan struct{}) map[reflect.Type]bool {
	return f.WaitForCacheSyncWithContext(wait.ContextForChannel(stop)).Synced
}

// WaitForCacheSyncWithContext implements informers.SharedInformerFactory.
func (f *Informers) WaitForCacheSyncWithContext(ctx context.Context) cache.SyncResult {
	result := f.shared.WaitForCacheSyncWithContext(ctx)
	f.mu.Lock()
	absent := maps.Clone(f.absent)
	f.mu.Unlock()
	for kind, i := range absent {
		cache.WaitFor(ctx, "", i.HasSyncedChecker())
		result.Synced[kind] = i.HasSynced()
	}
	return result
}

func (f *Informers) removeHandlers() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.tracked {
		t.removeHandlers()
	}
}

// termInformer is a shared informer that remembers which handlers the term added.
type termInformer struct {
	cache.SharedIndexInformer
	open <-chan struct{}
	term context.Context

	mu      sync.Mutex
	over    bool
	handles []cache.ResourceEventHandlerRegistration
}

func (t *termInformer) AddEventHandler(h cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	return t.keep(t.SharedIndexInformer.AddEventHandler(t.gate(h)))
}

func (t *termInformer) AddEventHandlerWithResyncPeriod(h cache.ResourceEventHandler, d time.Duration) (cache.ResourceEventHandlerRegistration, error) {
	return t.keep(t.SharedIndexInformer.AddEventHandlerWithResyncPeriod(t.gate(h), d))
}

func (t *termInformer) AddEventHandlerWithOptions(h cache.ResourceEventHandler, o cache.HandlerOptions) (cache.ResourceEventHandlerRegistration, error) {
	return t.keep(t.SharedIndexInformer.AddEventHandlerWithOptions(t.gate(h), o))
}

func (t *termInformer) gate(h cache.ResourceEventHandler) cache.ResourceEventHandler {
	return gate{handler: h, open: t.open, term: t.term}
}

func (t *termInformer) keep(r cache.ResourceEventHandlerRegistration, err error) (cache.ResourceEventHandlerRegistration, error) {
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return r, t.RemoveEventHandler(r)
	}
	t.handles = append(t.handles, r)
	return r, nil
}

func (t *termInformer) removeHandlers() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	for _, r := range t.handles {
		_ = t.RemoveEventHandler(r) // fails for a handler of another informer only
	}
	t.handles = nil
}

// gate holds a handler's events back until open is closed, and drops them once the term is over.
// Each handler has a goroutine of its own in the informer, so waiting here holds up nobody else.
type gate struct {
	handler cache.ResourceEventHandler
	open    <-chan struct{}
	term    context.Context
}

func (g gate) pass() bool {
	select {
	case <-g.open:
	case <-g.term.Done():
	}
	return g.term.Err() == nil
}

// OnAdd implements cache.ResourceEventHandler.
func (g gate) OnAdd(o any, initial bool) {
	if g.pass() {
		g.handler.OnAdd(o, initial)
	}
}

// OnUpdate implements cache.ResourceEventHandler.
func (g gate) OnUpdate(old, o any) {
	if g.pass() {
		g.handler.OnUpdate(old, o)
	}
}

// OnDelete implements cache.ResourceEventHandler.
func (g gate) OnDelete(o any) {
	if g.pass() {
		g.handler.OnDelete(o)
	}
}

// emptySource lists nothing, and watches without an event until stopped.
type emptySource struct{}

func (emptySource) List(metav1.ListOptions) (runtime.Object, error) {
	return &metav1.List{ListMeta: metav1.ListMeta{ResourceVersion: "1"}}, nil
}

func (emptySource) Watch(metav1.ListOptions) (watch.Interface, error) { return watch.NewFake(), nil }

// IsWatchListSemanticsUnSupported makes the reflector list instead of streaming the list.
func (emptySource) IsWatchListSemanticsUnSupported() bool { return true }

// servedKinds asks the server once what it serves.
func servedKinds(d discovery.DiscoveryInterface) (sets.Set[schema.GroupVersionKind], error) {
	_, lists, err := d.ServerGroupsAndResources()
	if err != nil {
		return nil, fmt.Errorf("asking the API server which kinds it serves: %w", err)
	}
	served := sets.New[schema.GroupVersionKind]()
	for _, l := range lists {
		gv, err := schema.ParseGroupVersion(l.GroupVersion)
		if err != nil {
			return nil, fmt.Errorf("the API server announced group version %q: %w", l.GroupVersion, err)
		}
		for i := range l.APIResources {
			served.Insert(gv.WithKind(l.APIResources[i].Kind))
		}
	}
	return served, nil
}
