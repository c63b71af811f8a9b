package daemonset

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/watchlist"
)

// Sources are where the controller lists and watches its four kinds. It only reads what they hand out, and soon
// lets go of nodes and pods: a source may give away objects that it keeps itself.
type Sources struct {
	DaemonSets, ControllerRevisions, Nodes, Pods cache.ListerWatcher
}

// ClientSources lists and watches through the API.
func ClientSources(c kubernetes.Interface) Sources {
	return Sources{
		DaemonSets:          clientSource(c, c.AppsV1().DaemonSets("")),
		ControllerRevisions: clientSource(c, c.AppsV1().ControllerRevisions("")),
		Nodes:               clientSource(c, c.CoreV1().Nodes()),
		Pods:                clientSource(c, c.CoreV1().Pods("")),
	}
}

// typedClient is what each of client-go's typed clients has.
type typedClient[L runtime.Object] interface {
	List(context.Context, metav1.ListOptions) (L, error)
	Watch(context.Context, metav1.ListOptions) (watch.Interface, error)
}

func clientSource[L runtime.Object](c kubernetes.Interface, of typedClient[L]) cache.ListerWatcher {
	return cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc:  func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return of.List(ctx, o) },
		WatchFuncWithContext: of.Watch,
	}, c)
}

// consistent makes a reflector begin with all that is stored. By itself it takes any version ("0") for its first
// list, which a server may answer from a cache that is behind; and a new leader must not act on less than what is
// stored, for the one before it may have made pods a moment ago.
type consistent struct{ cache.ListerWatcher }

// ListWithContext implements cache.ListerWithContext.
func (c consistent) ListWithContext(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	if o.ResourceVersion == "0" {
		o.ResourceVersion = ""
	}
	return cache.ToListerWithContext(c.ListerWatcher).ListWithContext(ctx, o)
}

// WatchWithContext implements cache.WatcherWithContext.
func (c consistent) WatchWithContext(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	return cache.ToWatcherWithContext(c.ListerWatcher).WatchWithContext(ctx, o)
}

// IsWatchListSemanticsUnSupported says what the source says. Where a list can be watched, that is consistent too.
func (c consistent) IsWatchListSemanticsUnSupported() bool {
	return watchlist.DoesClientNotSupportWatchListSemantics(c.ListerWatcher)
}
