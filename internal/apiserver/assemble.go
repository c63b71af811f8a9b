package apiserver

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/discovery"
	"k8s.io/apiserver/pkg/features"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/filters"
	"k8s.io/apiserver/pkg/server/healthz"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/util/compatibility"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	basecompatibility "k8s.io/component-base/compatibility"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/capabilities"
	"k8s.io/kubernetes/pkg/kubeapiserver"
	"k8s.io/kubernetes/pkg/serviceaccount"

	"github.com/everynode/everynode/internal/apiserver/direct"
	"github.com/everynode/everynode/internal/apiserver/inprocess"
	"github.com/everynode/everynode/internal/decide/nodehealth"
)

const (
	// maxReads and maxWrites bound the requests that are answered at the same time. There is no priority and fairness:
	// its kinds are not served. The bounds are generous because agents' watches do not count.
	maxReads  = 3000
	maxWrites = 1000
	// storagePrefix is where in etcd the objects are, as with any Kubernetes.
	storagePrefix = "/registry"
	// resync of the shared informers is off: handlers hear of changes, and nothing is O(cluster) every few minutes.
	resync = 0
)

// assembly is a server under construction: each step reads what earlier steps have set.
type assembly struct {
	options   *Options
	generic   *genericapiserver.Config
	resources *serverstorage.ResourceConfig
	factory   *serverstorage.DefaultStorageFactory
	client    *kubernetes.Clientset
	informers informers.SharedInformerFactory
	tokenKeys serviceaccount.PublicKeysGetter
	server    *genericapiserver.GenericAPIServer
	loopback  *inprocess.Transport // of the loopback client
	core      coreKinds
	writer    *direct.Writer
	sources   *direct.Sources
}

func assemble(ctx context.Context, o *Options, l net.Listener) (*assembly, error) {
	a := &assembly{options: o, resources: served(), loopback: &inprocess.Transport{}}
	for _, step := range []func() error{
		a.basics,
		func() error { return a.serving(l) },
		a.clients,
		a.openAPI,
		a.storage,
		a.health,
		func() error { return a.authenticate(ctx) },
		a.authorize,
		a.admit,
		a.audit,
		a.endRequests,
		a.build,
		a.discoverIssuer,
		a.install,
		a.direct,
		a.hooks,
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (a *assembly) basics() error {
	// Most node agents are privileged. Who may run them is for RBAC and the namespace's Pod Security level to say, as
	// wherever Kubernetes is set up by kubeadm and its like; the library's default refuses them for everyone.
	capabilities.Setup(true, 0)
	if err := installMetrics(); err != nil {
		return err
	}
	c := genericapiserver.NewConfig(legacyscheme.Codecs)
	c.EffectiveVersion = compatibility.DefaultComponentGlobalsRegistry.EffectiveVersionFor(basecompatibility.DefaultKubeComponent)
	c.FeatureGate = utilfeature.DefaultFeatureGate
	c.MergedResourceConfig = a.resources
	c.LongRunningFunc = filters.BasicLongRunningRequestCheck(
		sets.NewString("watch", "proxy"),
		sets.NewString("attach", "exec", "proxy", "log", "portforward"),
	)
	c.BuildHandlerChainFunc = roomyChain
	c.MaxRequestsInFlight, c.MaxMutatingRequestsInFlight = maxReads, maxWrites
	c.PublicAddress = net.IPv4(127, 0, 0, 1)
	if a.options.AdvertiseIP != nil {
		c.PublicAddress = a.options.AdvertiseIP
	}
	a.generic = c
	return nil
}

// serving sets up TLS on the open listener, and the loopback client that in-process callers use.
func (a *assembly) serving(l net.Listener) error {
	s := genericoptions.NewSecureServingOptions().WithLoopback()
	s.Listener = l
	s.HTTP2MaxStreamsPerConnection = 1000
	cert, key, err := a.options.PKI.Serving(a.servingNames())
	if err != nil {
		return fmt.Errorf("serving certificate: %w", err)
	}
	s.ServerCert.CertKey.CertFile, s.ServerCert.CertKey.KeyFile = cert, key
	if err := s.ApplyToConfig(a.generic); err != nil {
		return fmt.Errorf("serving: %w", err)
	}
	lc := a.generic.LoopbackClientConfig
	lc.ContentType = runtime.ContentTypeProtobuf
	lc.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	lc.DisableCompression = true
	lc.QPS = -1 // in-process callers are held back by the store alone
	lc.Wrap(func(http.RoundTripper) http.RoundTripper { return a.loopback })
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return err
	}
	a.generic.ExternalAddress = net.JoinHostPort(a.generic.PublicAddress.String(), port)
	a.generic.DiscoveryAddresses = discovery.DefaultAddresses{
		DefaultAddress: a.generic.ExternalAddress,
		CIDRRules:      []discovery.CIDRRule{{IPRange: *a.options.ServiceCIDR, Address: net.JoinHostPort(a.options.serviceIP().String(), "443")}},
	}
	return nil
}

// servingNames are all names and addresses under which clients may reach this server.
func (a *assembly) servingNames() ([]string, []net.IP) {
	names := []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
	if h, err := os.Hostname(); err == nil && h != "" {
		names = append(names, h)
	}
	ips := []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback, a.options.serviceIP(), a.options.bridgeIP()}
	for _, l := range append([]string{a.options.Listen}, a.options.ExtraListen...) {
		host, _, _ := net.SplitHostPort(l)
		if ip := net.ParseIP(host); ip != nil && !ip.IsUnspecified() {
			ips = append(ips, ip)
		}
	}
	if a.options.AdvertiseIP != nil {
		ips = append(ips, a.options.AdvertiseIP)
	}
	return sets.List(sets.New(names...)), uniqueIPs(ips)
}

func uniqueIPs(ips []net.IP) []net.IP {
	seen := sets.New[string]()
	var out []net.IP
	for _, ip := range ips {
		if !seen.Has(ip.String()) {
			seen.Insert(ip.String())
			out = append(out, ip)
		}
	}
	return out
}

func (a *assembly) clients() error {
	c, err := kubernetes.NewForConfig(a.generic.LoopbackClientConfig)
	if err != nil {
		return err
	}
	a.client = c
	a.informers = informers.NewSharedInformerFactoryWithOptions(c, resync, informers.WithTransform(dropManagedFields))
	a.fromRegistries(a.informers)
	return nil
}

// dropManagedFields keeps the largest part of most objects' metadata, which no controller reads, out of the caches,
// and of a node's lease all but its time.
func dropManagedFields(obj any) (any, error) {
	if m, err := meta.Accessor(obj); err == nil && m.GetManagedFields() != nil {
		m.SetManagedFields(nil)
	}
	if l, ok := obj.(*coordinationv1.Lease); ok {
		nodehealth.TrimLease(l)
	}
	return obj, nil
}

func (a *assembly) storage() error {
	e := genericoptions.NewEtcdOptions(storagebackend.NewDefaultConfig(storagePrefix, nil))
	a.options.Store.Configure(&e.StorageConfig)
	e.DefaultStorageMediaType = runtime.ContentTypeProtobuf
	e.WatchCacheSizes = []string{"events#0", "events.events.k8s.io#0"}
	e.SkipHealthEndpoints = true // ours say more
	e.StorageConfig.StorageObjectCountTracker = a.generic.StorageObjectCountTracker

	c := kubeapiserver.NewStorageFactoryConfigEffectiveVersion(a.generic.EffectiveVersion)
	c.APIResourceConfig = a.resources
	c.DefaultResourceEncoding.SetEffectiveVersion(a.generic.EffectiveVersion)
	f, err := c.Complete(e).New()
	if err != nil {
		return fmt.Errorf("storage: %w", err)
	}
	if err := e.ApplyWithStorageFactoryTo(f, a.generic); err != nil {
		return fmt.Errorf("storage: %w", err)
	}
	a.factory = f
	a.options.Store.Observe()
	a.generic.RESTOptionsGetter = a.options.Store.Decorate(a.generic.RESTOptionsGetter, sharedVersions())
	return nil
}

// health adds the store to the checks. A store that refuses writes makes the server unready, not dead: it still reads,
// and a restart would not help.
func (a *assembly) health() error {
	live := healthz.NamedCheck("etcd", func(r *http.Request) error { return a.options.Store.Live(r.Context()) })
	writable := healthz.NamedCheck("etcd-has-space", func(r *http.Request) error { return a.options.Store.Writable(r.Context()) })
	a.generic.AddHealthChecks(live)
	a.generic.AddReadyzChecks(writable)
	return nil
}

// direct makes the writer and the sources for controllers in this process, over the same registries and checks.
func (a *assembly) direct() error {
	w, err := direct.New(direct.Options{
		Pods:                 a.core.pods,
		DaemonSetStatus:      a.core.daemonSetStatus,
		Admission:            a.generic.AdmissionControl,
		AuditBackend:         a.generic.AuditBackend,
		AuditPolicyEvaluator: a.generic.AuditPolicyRuleEvaluator,
	})
	a.writer, a.sources = w, direct.NewSources(a.core.daemonSets, a.core.revisions, a.core.nodes, a.core.pods)
	return err
}

func (a *assembly) build() error {
	s, err := a.generic.Complete(a.informers).New("everynode", genericapiserver.NewEmptyDelegate())
	if err != nil {
		return err
	}
	s.ShutdownTimeout = drainTimeout
	if utilfeature.DefaultFeatureGate.Enabled(features.WatchCacheInitializationPostStartHook) {
		s.AddPostStartHookOrDie("storage-readiness", s.StorageReadinessHook.Hook)
	}
	a.server = s
	return nil
}
