package apiserver

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	appsrest "k8s.io/kubernetes/pkg/registry/apps/rest"
	authenticationrest "k8s.io/kubernetes/pkg/registry/authentication/rest"
	authorizationrest "k8s.io/kubernetes/pkg/registry/authorization/rest"
	certificatesrest "k8s.io/kubernetes/pkg/registry/certificates/rest"
	coordinationrest "k8s.io/kubernetes/pkg/registry/coordination/rest"
	discoveryrest "k8s.io/kubernetes/pkg/registry/discovery/rest"
	eventsrest "k8s.io/kubernetes/pkg/registry/events/rest"
	noderest "k8s.io/kubernetes/pkg/registry/node/rest"
	policyrest "k8s.io/kubernetes/pkg/registry/policy/rest"
	rbacrest "k8s.io/kubernetes/pkg/registry/rbac/rest"
	schedulingrest "k8s.io/kubernetes/pkg/registry/scheduling/rest"
	storagerest "k8s.io/kubernetes/pkg/registry/storage/rest"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	// The scheme that the registries share learns a group by importing its install package.
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	_ "k8s.io/kubernetes/pkg/apis/authentication/install"
	_ "k8s.io/kubernetes/pkg/apis/authorization/install"
	_ "k8s.io/kubernetes/pkg/apis/autoscaling/install" // the Scale subresource
	_ "k8s.io/kubernetes/pkg/apis/certificates/install"
	_ "k8s.io/kubernetes/pkg/apis/coordination/install"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	_ "k8s.io/kubernetes/pkg/apis/discovery/install"
	_ "k8s.io/kubernetes/pkg/apis/events/install"
	_ "k8s.io/kubernetes/pkg/apis/node/install"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
	_ "k8s.io/kubernetes/pkg/apis/rbac/install"
	_ "k8s.io/kubernetes/pkg/apis/scheduling/install"
	_ "k8s.io/kubernetes/pkg/apis/storage/install"

	"github.com/everynode/everynode/internal/apiserver/direct"
)

// servedGroups are the API groups besides core, with the priorities that kube-aggregator gives them: clients that are
// told a bare kind take it from the group that comes first.
func servedGroups() []servedGroup {
	return []servedGroup{
		{appsv1.SchemeGroupVersion, 17800},
		{eventsv1.SchemeGroupVersion, 17750},
		{authenticationv1.SchemeGroupVersion, 17700},
		{authorizationv1.SchemeGroupVersion, 17600},
		{certificatesv1.SchemeGroupVersion, 17300},
		{policyv1.SchemeGroupVersion, 17100},
		{rbacv1.SchemeGroupVersion, 17000},
		{storagev1.SchemeGroupVersion, 16800},
		{schedulingv1.SchemeGroupVersion, 16600},
		{coordinationv1.SchemeGroupVersion, 16500},
		{nodev1.SchemeGroupVersion, 16300},
		{discoveryv1.SchemeGroupVersion, 16200},
		{metricsv1beta1.SchemeGroupVersion, 100},
	}
}

type servedGroup struct {
	version  schema.GroupVersion
	priority int
}

// served lists what is served: no kind is, unless its controller runs.
func served() *serverstorage.ResourceConfig {
	r := serverstorage.NewResourceConfig()
	r.EnableVersions(corev1.SchemeGroupVersion)
	for _, g := range servedGroups() {
		r.EnableVersions(g.version)
	}
	r.DisableResources(
		appsv1.SchemeGroupVersion.WithResource("statefulsets"),
		storagev1.SchemeGroupVersion.WithResource("volumeattributesclasses"),
	)
	return r
}

// groupProvider is what upstream's pkg/registry/GROUP/rest packages offer.
type groupProvider interface {
	NewRESTStorage(serverstorage.APIResourceConfigSource, generic.RESTOptionsGetter) (genericapiserver.APIGroupInfo, error)
}

func (a *assembly) groupProviders() []groupProvider {
	authn, authz := a.generic.Authentication, a.generic.Authorization.Authorizer
	return []groupProvider{
		appsrest.StorageProvider{},
		eventsrest.RESTStorageProvider{TTL: eventTTL},
		authenticationrest.RESTStorageProvider{Authenticator: authn.Authenticator, APIAudiences: authn.APIAudiences},
		authorizationrest.RESTStorageProvider{Authorizer: authz, RuleResolver: a.generic.RuleResolver},
		certificatesrest.RESTStorageProvider{Authorizer: authz},
		policyrest.RESTStorageProvider{},
		rbacrest.RESTStorageProvider{Authorizer: authz},
		storagerest.RESTStorageProvider{},
		schedulingrest.RESTStorageProvider{},
		coordinationrest.RESTStorageProvider{},
		noderest.RESTStorageProvider{},
		discoveryrest.StorageProvider{},
		metricsProvider{a},
	}
}

// install registers every served kind with the server.
func (a *assembly) install() error {
	core, err := a.coreGroup()
	if err != nil {
		return err
	}
	if err := a.server.InstallLegacyAPIGroup(genericapiserver.DefaultLegacyAPIPrefix, core); err != nil {
		return err
	}
	var groups []*genericapiserver.APIGroupInfo
	for _, p := range a.groupProviders() {
		g, err := p.NewRESTStorage(a.resources, a.generic.RESTOptionsGetter)
		if err != nil {
			return err
		}
		if apps, ok := g.VersionedResourcesStorageMap[appsv1.SchemeGroupVersion.Version]; ok && apps["daemonsets/status"] != nil {
			a.core.daemonSetStatus = apps["daemonsets/status"].(rest.Updater)
			a.core.daemonSets, a.core.revisions = apps["daemonsets"].(direct.Registry), apps["controllerrevisions"].(direct.Registry)
		}
		g.PrioritizedVersions = slices.DeleteFunc(slices.Clone(g.PrioritizedVersions), func(gv schema.GroupVersion) bool {
			return len(g.VersionedResourcesStorageMap[gv.Version]) == 0 // or it warns of each
		})
		groups = append(groups, &g)
	}
	if err := a.server.InstallAPIGroups(groups...); err != nil {
		return err
	}
	for _, g := range servedGroups() {
		a.server.AggregatedDiscoveryGroupManager.SetGroupVersionPriority(metav1.GroupVersion(g.version), g.priority, 15)
	}
	return nil
}
