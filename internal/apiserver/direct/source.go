package direct

import (
	"context"
	"fmt"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
)

// Sources list and watch resources at their registries, for reflectors in this process. An object that comes from
// one is as the API would send it, and nobody else's.
type Sources struct {
	DaemonSets, ControllerRevisions, Nodes, Pods cache.ListerWatcher
}

// Registry is what a source needs of a registry; upstream's generic Store is one.
type Registry interface {
	rest.Lister
	rest.Watcher
}

// NewSources makes the sources of four registries.
func NewSources(daemonSets, revisions, nodes, pods Registry) *Sources {
	return &Sources{
		DaemonSets:          newSource(daemonSets, &appsv1.DaemonSet{}, &appsv1.DaemonSetList{}),
		ControllerRevisions: newSource(revisions, &appsv1.ControllerRevision{}, &appsv1.ControllerRevisionList{}),
		Nodes:               newSource(nodes, &corev1.Node{}, &corev1.NodeList{}),
		Pods:                newSource(pods, &corev1.Pod{}, &corev1.PodList{}),
	}
}

// newSource makes the source of a registry's objects in all namespaces; one and list are empty, of the version to
// hand out.
func newSource[T, L interface{ DeepCopyObject() runtime.Object }](registry Registry, one T, list L) cache.ListerWatcher {
	s := source{registry: registry, one: one.DeepCopyObject, list: list.DeepCopyObject}
	lw := &cache.ListWatch{ListWithContextFunc: s.listAll, WatchFuncWithContext: s.watchAll}
	return cache.ToListWatcherWithWatchListSemantics(lw, s)
}

type source struct {
	registry  Registry
	one, list func() runtime.Object
}

// IsWatchListSemanticsUnSupported makes reflectors list, then watch: there is no connection that the list could hold up.
func (source) IsWatchListSemanticsUnSupported() bool { return true }

func (s source) listAll(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	options, err := internalOptions(&o)
	if err != nil {
		return nil, err
	}
	stored, err := s.registry.List(request.WithNamespace(ctx, metav1.NamespaceAll), options)
	if err != nil {
		return nil, err
	}
	return convert(stored, s.list())
}

func (s source) watchAll(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	options, err := internalOptions(&o)
	if err != nil {
		return nil, err
	}
	w, err := s.registry.Watch(request.WithNamespace(ctx, metav1.NamespaceAll), options)
	if err != nil {
		return nil, err
	}
	c := &converting{from: w, events: make(chan watch.Event), done: make(chan struct{})}
	go c.run(s.convertEvent)
	return c, nil
}

// converting is a watch whose events are converted. (Upstream's watch.Filter never ends if it is stopped while an
// event waits to be read.)
type converting struct {
	from   watch.Interface
	events chan watch.Event
	done   chan struct{}
	once   sync.Once
}

// ResultChan implements watch.Interface.
func (c *converting) ResultChan() <-chan watch.Event { return c.events }

// Stop implements watch.Interface.
func (c *converting) Stop() {
	c.once.Do(func() { close(c.done) })
	c.from.Stop()
}

func (c *converting) run(convert func(watch.Event) watch.Event) {
	defer close(c.events)
	for e := range c.from.ResultChan() {
		select {
		case c.events <- convert(e):
		case <-c.done:
			return
		}
	}
}

// convertEvent makes the event's object what the API would send. The object is a copy, or one that many watches share
// and that makes a copy.
func (s source) convertEvent(e watch.Event) watch.Event {
	if e.Type == watch.Error {
		return e
	}
	if shared, ok := e.Object.(runtime.CacheableObject); ok {
		e.Object = shared.GetObject()
	}
	out, err := convert(e.Object, s.one())
	if err != nil { // then it has no place in any answer of the API either
		return watch.Event{Type: watch.Error, Object: &apierrors.NewInternalError(err).ErrStatus}
	}
	e.Object = out
	return e
}

func internalOptions(o *metav1.ListOptions) (*internalversion.ListOptions, error) {
	options := &internalversion.ListOptions{}
	if err := internalversion.Convert_v1_ListOptions_To_internalversion_ListOptions(o, options, nil); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return options, nil
}

func convert(internal, versioned runtime.Object) (runtime.Object, error) {
	if err := legacyscheme.Scheme.Convert(internal, versioned, nil); err != nil {
		return nil, fmt.Errorf("convert a stored %T: %w", internal, err)
	}
	return versioned, nil
}
