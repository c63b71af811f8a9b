package apiserver

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	api "k8s.io/kubernetes/pkg/apis/core"
	kubeoptions "k8s.io/kubernetes/pkg/kubeapiserver/options"
	configmapstore "k8s.io/kubernetes/pkg/registry/core/configmap/storage"
	endpointsstore "k8s.io/kubernetes/pkg/registry/core/endpoint/storage"
	eventstore "k8s.io/kubernetes/pkg/registry/core/event/storage"
	limitrangestore "k8s.io/kubernetes/pkg/registry/core/limitrange/storage"
	namespacestore "k8s.io/kubernetes/pkg/registry/core/namespace/storage"
	nodestore "k8s.io/kubernetes/pkg/registry/core/node/storage"
	pvstore "k8s.io/kubernetes/pkg/registry/core/persistentvolume/storage"
	pvcstore "k8s.io/kubernetes/pkg/registry/core/persistentvolumeclaim/storage"
	podstore "k8s.io/kubernetes/pkg/registry/core/pod/storage"
	podtemplatestore "k8s.io/kubernetes/pkg/registry/core/podtemplate/storage"
	"k8s.io/kubernetes/pkg/registry/core/rangeallocation"
	secretstore "k8s.io/kubernetes/pkg/registry/core/secret/storage"
	"k8s.io/kubernetes/pkg/registry/core/service/allocator"
	serviceallocator "k8s.io/kubernetes/pkg/registry/core/service/allocator/storage"
	"k8s.io/kubernetes/pkg/registry/core/service/ipallocator"
	"k8s.io/kubernetes/pkg/registry/core/service/portallocator"
	servicestore "k8s.io/kubernetes/pkg/registry/core/service/storage"
	serviceaccountstore "k8s.io/kubernetes/pkg/registry/core/serviceaccount/storage"

	"github.com/everynode/everynode/internal/apiserver/direct"
)

// eventTTL is how long an event is kept after its last occurrence.
const eventTTL = time.Hour

// coreKinds are the registries that other parts of the server need besides serving them.
type coreKinds struct {
	pods            *podstore.REST
	nodes           *nodestore.REST
	daemonSets      direct.Registry
	daemonSetStatus rest.Updater
	revisions       direct.Registry
	clusterIPs      rangeallocation.RangeRegistry
	nodePorts       rangeallocation.RangeRegistry
}

// kindSet collects the storages of a group, and the first error.
type kindSet struct {
	storage map[string]rest.Storage
	err     error
}

func (k *kindSet) add(name string, s rest.Storage) { k.storage[name] = s }

func (k *kindSet) fail(what string, err error) {
	if err != nil && k.err == nil {
		k.err = fmt.Errorf("kind %s: %w", what, err)
	}
}

// coreGroup is upstream's pkg/registry/core/rest with what is served here. It is not that package because the service
// address allocator it insists on needs two more API kinds; this is the allocator it had before, one bitmap in etcd.
func (a *assembly) coreGroup() (*genericapiserver.APIGroupInfo, error) {
	info := genericapiserver.NewDefaultAPIGroupInfo("", legacyscheme.Scheme, legacyscheme.ParameterCodec, legacyscheme.Codecs)
	k := &kindSet{storage: map[string]rest.Storage{}}
	a.addPlainKinds(k)
	transport := proxyTransport()
	nodes := a.addNodes(k, transport)
	if k.err != nil {
		return nil, k.err
	}
	pods := a.addPods(k, nodes, transport)
	if k.err != nil {
		return nil, k.err
	}
	a.addServiceAccounts(k, pods, nodes)
	a.addServices(k, pods, transport)
	info.VersionedResourcesStorageMap[corev1.SchemeGroupVersion.Version] = k.storage
	return &info, k.err
}

func (a *assembly) addPlainKinds(k *kindSet) {
	g := a.generic.RESTOptionsGetter
	ns, nsStatus, nsFinalize, err := namespacestore.NewREST(g)
	k.fail("namespaces", err)
	k.add("namespaces", ns)
	k.add("namespaces/status", nsStatus)
	k.add("namespaces/finalize", nsFinalize)

	pv, pvStatus, err := pvstore.NewREST(g)
	k.fail("persistentvolumes", err)
	k.add("persistentvolumes", pv)
	k.add("persistentvolumes/status", pvStatus)

	pvc, pvcStatus, err := pvcstore.NewREST(g)
	k.fail("persistentvolumeclaims", err)
	k.add("persistentvolumeclaims", pvc)
	k.add("persistentvolumeclaims/status", pvcStatus)

	configMaps, err := configmapstore.NewREST(g)
	k.fail("configmaps", err)
	k.add("configmaps", configMaps)

	secrets, err := secretstore.NewREST(g)
	k.fail("secrets", err)
	k.add("secrets", secrets)

	events, err := eventstore.NewREST(g, uint64(eventTTL.Seconds()))
	k.fail("events", err)
	k.add("events", events)

	limits, err := limitrangestore.NewREST(g)
	k.fail("limitranges", err)
	k.add("limitranges", limits)

	templates, err := podtemplatestore.NewREST(g)
	k.fail("podtemplates", err)
	k.add("podtemplates", templates)

	endpoints, err := endpointsstore.NewREST(g)
	k.fail("endpoints", err)
	k.add("endpoints", endpoints)
}

func (a *assembly) addNodes(k *kindSet, transport http.RoundTripper) *nodestore.NodeStorage {
	config, err := a.kubeletClient()
	k.fail("nodes", err)
	nodes, err := nodestore.NewStorage(a.generic.RESTOptionsGetter, config, transport)
	k.fail("nodes", err)
	if err != nil {
		return nil
	}
	a.core.nodes = nodes.Node
	k.add("nodes", nodeKind{nodes.Node, a.options.NodeRanges})
	k.add("nodes/status", nodes.Status)
	k.add("nodes/proxy", nodes.Proxy)
	return nodes
}

func (a *assembly) addPods(k *kindSet, nodes *nodestore.NodeStorage, transport http.RoundTripper) *podstore.REST {
	pods, err := podstore.NewStorage(a.generic.RESTOptionsGetter, nodes.KubeletConnectionInfo, transport, a.client.PolicyV1(), a.generic.Authorization.Authorizer)
	k.fail("pods", err)
	if err != nil {
		return nil
	}
	k.add("pods", podKind{pods.Pod})
	k.add("pods/attach", pods.Attach)
	k.add("pods/binding", pods.Binding)
	k.add("pods/ephemeralcontainers", pods.EphemeralContainers)
	k.add("pods/eviction", pods.Eviction)
	k.add("pods/exec", pods.Exec)
	k.add("pods/log", pods.Log)
	k.add("pods/portforward", pods.PortForward)
	k.add("pods/proxy", pods.Proxy)
	k.add("pods/resize", pods.Resize)
	k.add("pods/status", pods.Status)
	k.add("bindings", pods.LegacyBinding)
	a.core.pods = pods.Pod
	return pods.Pod
}

func (a *assembly) addServiceAccounts(k *kindSet, pods *podstore.REST, nodes *nodestore.NodeStorage) {
	issuer, err := a.tokenIssuer()
	k.fail("serviceaccounts", err)
	s, err := serviceaccountstore.NewREST(a.generic.RESTOptionsGetter, issuer, a.generic.Authentication.APIAudiences, 0,
		pods.Store, k.storage["secrets"].(rest.Getter), nodes.Node.Store, true, tokenExtension)
	k.fail("serviceaccounts", err)
	if err != nil {
		return
	}
	k.add("serviceaccounts", s)
	k.add("serviceaccounts/token", s.Token)
}

func (a *assembly) addServices(k *kindSet, pods *podstore.REST, transport http.RoundTripper) {
	ips, err := ipallocator.New(a.options.ServiceCIDR, a.bitmap("/ranges/serviceips", "serviceipallocations", &a.core.clusterIPs))
	k.fail("services", err)
	ports, err := portallocator.New(kubeoptions.DefaultServiceNodePortRange, a.bitmap("/ranges/servicenodeports", "servicenodeportallocations", &a.core.nodePorts))
	k.fail("services", err)
	if k.err != nil {
		return
	}
	ips.EnableMetrics()
	ports.EnableMetrics()
	s, status, proxy, err := servicestore.NewREST(a.generic.RESTOptionsGetter, ips.IPFamily(),
		map[api.IPFamily]ipallocator.Interface{ips.IPFamily(): ips}, ports, k.storage["endpoints"].(*endpointsstore.REST), pods, transport)
	k.fail("services", err)
	k.add("services", s)
	k.add("services/status", status)
	k.add("services/proxy", proxy)
}

// bitmap makes an allocator whose bitmap is one object in etcd, so that what is allocated stays so over restarts and
// between servers. The registry it is known as to the repair loop goes to out.
func (a *assembly) bitmap(key, resource string, out *rangeallocation.RangeRegistry) allocator.AllocatorWithOffsetFactory {
	return func(size int, spec string, offset int) (allocator.Interface, error) {
		config, err := a.rawStorage(api.Resource(resource))
		if err != nil {
			return nil, err
		}
		e, err := serviceallocator.NewEtcd(allocator.NewAllocationMapWithOffset(size, spec, offset), key, config)
		if err != nil {
			return nil, err
		}
		*out = e
		return e, nil
	}
}

// rawStorage is the configuration for the few things in etcd that are no API objects.
func (a *assembly) rawStorage(gr schema.GroupResource) (*storagebackend.ConfigForResource, error) {
	c, err := a.factory.NewConfig(api.Resource("services"), &api.Service{})
	if err != nil {
		return nil, err
	}
	return c.ForResource(gr), nil
}

// proxyTransport reaches pods and services for the proxy subresources. Their certificates cannot be checked: they are
// reached by address.
func proxyTransport() *http.Transport {
	return utilnet.SetTransportDefaults(&http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}})
}
