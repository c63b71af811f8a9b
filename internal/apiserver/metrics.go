package apiserver

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/client-go/transport"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	kubeletclient "k8s.io/kubernetes/pkg/kubelet/client"
	"k8s.io/metrics/pkg/apis/metrics"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/everynode/everynode/internal/apiserver/resourcemetrics"
)

// Connections to agents that are kept open between requests for metrics: enough for a small fleet,
// and no burden after somebody has asked for thousands.
const (
	idleAgents       = 64
	idleAgentTimeout = 30 * time.Second
)

// installMetrics adds the kinds to the scheme that all registries share. Servers in one process do so once.
var installMetrics = sync.OnceValue(func() error { return resourcemetrics.Install(legacyscheme.Scheme) })

// metricsProvider offers metrics.k8s.io like upstream's packages offer their groups.
type metricsProvider struct{ *assembly }

// NewRESTStorage implements groupProvider.
func (p metricsProvider) NewRESTStorage(serverstorage.APIResourceConfigSource, generic.RESTOptionsGetter) (genericapiserver.APIGroupInfo, error) {
	info := genericapiserver.NewDefaultAPIGroupInfo(metrics.GroupName, legacyscheme.Scheme, legacyscheme.ParameterCodec, legacyscheme.Codecs)
	config, err := p.kubeletClient()
	if err != nil {
		return info, err
	}
	client, err := agentsClient(&config)
	if err != nil {
		return info, fmt.Errorf("client of the agents' statistics: %w", err)
	}
	source := &resourcemetrics.Source{Client: client, Port: int(config.Port)}
	for _, kind := range config.PreferredAddressTypes {
		source.Addresses = append(source.Addresses, corev1.NodeAddressType(kind))
	}
	core := p.informers.Core().V1()
	info.VersionedResourcesStorageMap = map[string]map[string]rest.Storage{
		metricsv1beta1.SchemeGroupVersion.Version: resourcemetrics.Storage(core.Nodes().Lister(), core.Pods().Lister(), &resourcemetrics.Cache{Ask: source.Ask}),
	}
	return info, nil
}

// agentsClient speaks HTTP/1, whose idle connections cost little and are bounded.
func agentsClient(config *kubeletclient.KubeletClientConfig) (*http.Client, error) {
	tls, err := transport.TLSConfigFor(&transport.Config{TLS: transport.TLSConfig{
		CAFile: config.TLSClientConfig.CAFile, CertFile: config.TLSClientConfig.CertFile, KeyFile: config.TLSClientConfig.KeyFile, ReloadTLSFiles: true,
	}})
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: tls, DialContext: agentDialer{ownAddress}.dial, TLSHandshakeTimeout: 5 * time.Second,
		MaxIdleConns: idleAgents, MaxIdleConnsPerHost: 1, IdleConnTimeout: idleAgentTimeout, DisableCompression: true,
	}}, nil
}

// metricsReader lets whoever may look at things look at these, too; metrics-server brings the same role.
func metricsReader() rbacv1.ClusterRole {
	return rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "system:aggregated-metrics-reader", Labels: map[string]string{
			"rbac.authorization.k8s.io/aggregate-to-view": "true", "rbac.authorization.k8s.io/aggregate-to-edit": "true", "rbac.authorization.k8s.io/aggregate-to-admin": "true",
		}},
		Rules: []rbacv1.PolicyRule{{APIGroups: []string{metrics.GroupName}, Resources: []string{"pods", "nodes"}, Verbs: []string{"get", "list", "watch"}}},
	}
}
