// Package watch follows a few objects of the API server for the agent and hands every change on.
//
// It keeps no copy of what it saw: the handler decides what is worth remembering, and an agent
// remembers little (a pod's environment needs five fields of a Service, a route two of a line). So
// it is what an informer is without its store. The node, network and root packages of the agent use
// it; it never writes to the server.
package watch

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// Client is a typed client of client-go, such as client.CoreV1().Nodes().
type Client[L runtime.Object] interface {
	List(ctx context.Context, o metav1.ListOptions) (L, error)
	Watch(ctx context.Context, o metav1.ListOptions) (apiwatch.Interface, error)
}

// Handler is told of changes, one call at a time, in the server's order. What it is given belongs
// to it.
type Handler[T any] struct {
	// Set is called with an object that is new or has changed.
	Set func(T)
	// Remove is called with the last known state of an object that is gone.
	Remove func(T)
	// Replace is called with all objects: first of all, and again after a gap in the watch; what is
	// not among them is gone.
	Replace func([]T)
}

// Options say what to follow.
type Options struct {
	// Name is for the log.
	Name string
	// Fields is a field selector, "" for everything.
	Fields string
}

// Run follows until ctx ends. T is the type of the objects, such as *corev1.Node. A server that
// cannot be reached is tried again, first soon, then every few seconds.
//
// The whole clientset is asked for because it is what says whether streaming lists are understood.
func Run[T runtime.Object, L runtime.Object](ctx context.Context, clients kubernetes.Interface, client Client[L], expected T, o Options, h Handler[T]) {
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, lo metav1.ListOptions) (runtime.Object, error) {
			lo.FieldSelector = o.Fields
			return client.List(ctx, lo)
		},
		WatchFuncWithContext: func(ctx context.Context, lo metav1.ListOptions) (apiwatch.Interface, error) {
			lo.FieldSelector = o.Fields
			return client.Watch(ctx, lo)
		},
	}
	r := cache.NewReflectorWithOptions(cache.ToListWatcherWithWatchListSemantics(lw, clients), expected, &store[T]{h}, cache.ReflectorOptions{
		Name: o.Name,
		// A server that restarts is back within seconds, and so are we; the jitter keeps thousands of
		// agents from coming back in one moment.
		Backoff: &wait.Backoff{Duration: 200 * time.Millisecond, Cap: 4 * time.Second, Steps: 60, Factor: 2, Jitter: 1},
	})
	r.RunWithContext(ctx)
}

// store is the handler in the form that a reflector fills.
type store[T any] struct{ h Handler[T] }

func (s *store[T]) Add(obj any) error    { return each(obj, s.h.Set) }
func (s *store[T]) Update(obj any) error { return each(obj, s.h.Set) }
func (s *store[T]) Delete(obj any) error { return each(obj, s.h.Remove) }
func (s *store[T]) Resync() error        { return nil }

func (s *store[T]) Replace(objs []any, _ string) error {
	list := make([]T, 0, len(objs))
	for _, obj := range objs {
		if err := each(obj, func(t T) { list = append(list, t) }); err != nil {
			return err
		}
	}
	s.h.Replace(list)
	return nil
}

func each[T any](obj any, f func(T)) error {
	t, ok := obj.(T)
	if !ok {
		return fmt.Errorf("watch brought a %T, want %T", obj, *new(T))
	}
	f(t)
	return nil
}
