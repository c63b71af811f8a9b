package apiserver

import (
	"context"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// fromRegistries has the informers of what there is most of, pods and nodes, and of what changes with them, watch at the
// registries: each change would otherwise be encoded, sent and decoded within the process. Whoever asks f for one gets
// it.
func (a *assembly) fromRegistries(f informers.SharedInformerFactory) {
	f.InformerFor(&corev1.Pod{}, registryInformer(&corev1.Pod{}, func() cache.ListerWatcher { return a.sources.Pods }))
	f.InformerFor(&corev1.Node{}, registryInformer(&corev1.Node{}, func() cache.ListerWatcher { return a.sources.Nodes }))
	f.InformerFor(&appsv1.DaemonSet{}, registryInformer(&appsv1.DaemonSet{}, func() cache.ListerWatcher { return a.sources.DaemonSets }))
	f.InformerFor(&appsv1.ControllerRevision{}, registryInformer(&appsv1.ControllerRevision{}, func() cache.ListerWatcher { return a.sources.ControllerRevisions }))
}

// registryInformer makes an informer as the factory's own are, but for where it watches. The source need not be there
// before the informer runs.
func registryInformer(kind runtime.Object, source func() cache.ListerWatcher) func(kubernetes.Interface, time.Duration) cache.SharedIndexInformer {
	late := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return cache.ToListerWithContext(source()).ListWithContext(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return cache.ToWatcherWithContext(source()).WatchWithContext(ctx, o)
		},
	}
	return func(_ kubernetes.Interface, resync time.Duration) cache.SharedIndexInformer {
		return cache.NewSharedIndexInformer(cache.ToListWatcherWithWatchListSemantics(late, listsFirst{}), kind, resync,
			cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	}
}

// listsFirst is said of a source that does not stream its lists.
type listsFirst struct{}

// IsWatchListSemanticsUnSupported is what reflectors ask.
func (listsFirst) IsWatchListSemanticsUnSupported() bool { return true }
