package store

import (
	"context"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	etcdk8s "go.etcd.io/etcd/client/v3/kubernetes"
	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage"
	cacherstorage "k8s.io/apiserver/pkg/storage/cacher"
	"k8s.io/apiserver/pkg/storage/etcd3"
	etcdfeature "k8s.io/apiserver/pkg/storage/feature"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/apiserver/pkg/storage/value/encrypt/identity"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/tools/cache"
)

// Decorate makes every store of g use this backend: with an embedded etcd by function calls instead of a socket.
// Everything else (watch caches, their indexes, encryption at rest) stays as g configured it. The versions of an object
// that a watch cache holds share memory as share says, by kind. With an external etcd g already does the right thing
// and is returned as it is.
func (b *Backend) Decorate(g generic.RESTOptionsGetter, share map[schema.GroupResource]Share) generic.RESTOptionsGetter {
	if !b.Embedded() {
		return g
	}
	tracked := *b.client
	tracked.KV = etcd3.NewETCDLatencyTracker(reasonedKV{b.client.KV, b.guard.writable}) // each request's time in etcd
	kc := &etcdk8s.Client{Client: &tracked}
	kc.Kubernetes = kc
	return &inProcess{RESTOptionsGetter: g, client: kc, compactor: b.compactor, share: share}
}

type inProcess struct {
	generic.RESTOptionsGetter
	client    *etcdk8s.Client
	compactor etcd3.Compactor
	share     map[schema.GroupResource]Share
}

// GetRESTOptions replaces only the decorator of the wrapped options.
func (p *inProcess) GetRESTOptions(gr schema.GroupResource, example runtime.Object) (generic.RESTOptions, error) {
	o, err := p.RESTOptionsGetter.GetRESTOptions(gr, example)
	if err != nil {
		return o, err
	}
	if uncached(gr) {
		o.Decorator = p.direct
	} else {
		o.Decorator = p.cached
	}
	return o, nil
}

// uncached names the kinds that are written far more often than read.
func uncached(gr schema.GroupResource) bool {
	return gr.Resource == "events" && (gr.Group == "" || gr.Group == "events.k8s.io")
}

// direct is upstream's newETCD3Storage with our client and compactor.
func (p *inProcess) direct(cfg *storagebackend.ConfigForResource, prefix string, _ func(runtime.Object) (string, error),
	newFunc, newListFunc func() runtime.Object, _ storage.AttrFunc, _ storage.IndexerFuncs, _ *cache.Indexers) (storage.Interface, factory.DestroyFunc, error) {
	transformer := cfg.Transformer
	if transformer == nil {
		transformer = identity.NewEncryptCheckTransformer()
	}
	versioner := storage.APIObjectVersioner{}
	decoder := etcd3.NewDefaultDecoder(cfg.Codec, versioner)
	unsafeDelete := utilfeature.DefaultFeatureGate.Enabled(features.AllowUnsafeMalformedObjectDeletion)
	if unsafeDelete {
		transformer = etcd3.WithCorruptObjErrorHandlingTransformer(transformer)
		decoder = etcd3.WithCorruptObjErrorHandlingDecoder(decoder)
	}
	s, err := etcd3.New(p.client, p.compactor, cfg.Codec, newFunc, newListFunc, cfg.Prefix, prefix, cfg.GroupResource,
		transformer, cfg.LeaseManagerConfig, decoder, versioner)
	if err != nil {
		return nil, nil, err
	}
	if unsafeDelete {
		return etcd3.NewStoreWithUnsafeCorruptObjectDeletion(s, cfg.GroupResource), s.Close, nil
	}
	return s, s.Close, nil
}

// cached is upstream's StorageWithCacher over direct.
func (p *inProcess) cached(cfg *storagebackend.ConfigForResource, prefix string, keyFunc func(runtime.Object) (string, error),
	newFunc, newListFunc func() runtime.Object, attrs storage.AttrFunc, triggers storage.IndexerFuncs, indexers *cache.Indexers) (storage.Interface, factory.DestroyFunc, error) {
	s, destroy, err := p.direct(cfg, prefix, keyFunc, newFunc, newListFunc, attrs, triggers, indexers)
	if err != nil {
		return nil, nil, err
	}
	c, err := cacherstorage.NewCacherFromConfig(cacherstorage.Config{
		Storage:             sharing(s, p.share[cfg.GroupResource]),
		Versioner:           storage.APIObjectVersioner{},
		GroupResource:       cfg.GroupResource,
		EventsHistoryWindow: cfg.EventsHistoryWindow,
		ResourcePrefix:      prefix,
		KeyFunc:             keyFunc,
		NewFunc:             newFunc,
		NewListFunc:         newListFunc,
		GetAttrsFunc:        attrs,
		IndexerFuncs:        triggers,
		Indexers:            indexers,
		Codec:               cfg.Codec,
	})
	if err != nil {
		destroy()
		return nil, nil, err
	}
	d := cacherstorage.NewCacheDelegator(c, s)
	var once sync.Once
	// Subresources share their store, so it is destroyed more than once.
	return d, func() { once.Do(func() { d.Stop(); c.Stop(); destroy() }) }, nil
}

// checkFeatures tells upstream's storage layer what this etcd can do. Upstream asks every endpoint of the client it is
// given, and an in-process client has none, so without this WatchList and consistent reads from the watch cache would
// silently be off. The answer is global and stays.
func checkFeatures(ctx context.Context, endpoint string) error {
	c, err := clientv3.New(clientv3.Config{Context: context.WithoutCancel(ctx), Endpoints: []string{endpoint}, DialTimeout: dialTimeout, Logger: zap.NewNop()})
	if err != nil {
		return fmt.Errorf("store: cannot reach the embedded etcd at %s: %w", endpoint, err)
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	checker := etcdfeature.DefaultFeatureSupportChecker
	checker.CheckClient(ctx, c, storage.RequestWatchProgress)
	err = wait.PollUntilContextCancel(ctx, time.Millisecond, true, func(context.Context) (bool, error) {
		return checker.Supports(storage.RequestWatchProgress), nil
	})
	if err != nil {
		return fmt.Errorf("store: the embedded etcd at %s did not report its features: %w", endpoint, err)
	}
	return nil
}
