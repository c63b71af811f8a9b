package housekeeping

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/kubernetes/pkg/controller/certificates/rootcacertpublisher"
)

// trim drops managedFields, which no controller reads, before an object enters a cache.
func trim(obj any) (any, error) {
	if m, err := meta.Accessor(obj); err == nil && m.GetManagedFields() != nil {
		m.SetManagedFields(nil)
	}
	return obj, nil
}

// rootCAs is a factory whose ConfigMap informer holds upstream's kube-root-ca.crt of every namespace
// and no other ConfigMap: there may be many, and large ones.
func (e *environment) rootCAs(client kubernetes.Interface) informers.SharedInformerFactory {
	f := informers.NewSharedInformerFactoryWithOptions(client, 0,
		informers.WithTransform(trim),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, rootcacertpublisher.RootCACertConfigMapName).String()
		}))
	e.own = append(e.own, f)
	return f
}

// sharedResources are those whose full objects are in the shared informers anyway, because the API
// server's authentication, authorization and admission, a controller or the scheduler reads them, or
// which cost less than their metadata, because the API server's informers of them watch its registries.
// Watching these a second time for the garbage collector would cost more than sharing; of all
// others it watches the metadata.
func sharedResources() sets.Set[schema.GroupResource] {
	s := sets.New[schema.GroupResource]()
	for group, resources := range map[string][]string{
		"": {"endpoints", "limitranges", "namespaces", "nodes", "persistentvolumeclaims", "persistentvolumes",
			"pods", "secrets", "serviceaccounts", "services"},
		"apps":                      {"controllerrevisions", "daemonsets", "deployments", "replicasets"},
		"certificates.k8s.io":       {"certificatesigningrequests"},
		"coordination.k8s.io":       {"leases"},
		"discovery.k8s.io":          {"endpointslices"},
		"node.k8s.io":               {"runtimeclasses"},
		"policy":                    {"poddisruptionbudgets"},
		"rbac.authorization.k8s.io": {"clusterrolebindings", "clusterroles", "rolebindings", "roles"},
		"scheduling.k8s.io":         {"priorityclasses"},
		"storage.k8s.io":            {"csidrivers", "csinodes", "csistoragecapacities", "storageclasses", "volumeattachments"},
	} {
		for _, r := range resources {
			s.Insert(schema.GroupResource{Group: group, Resource: r})
		}
	}
	return s
}

// garbageInformers gives the garbage collector shared informers where they exist and metadata
// informers elsewhere. (Upstream's factory opens a full informer for every built-in kind, so that
// each Secret and ConfigMap of the cluster is held in memory for its owner references.)
type garbageInformers struct {
	shared   informers.SharedInformerFactory
	metadata metadatainformer.SharedInformerFactory
	full     sets.Set[schema.GroupResource]
}

// ForResource implements informerfactory.InformerFactory.
func (g *garbageInformers) ForResource(r schema.GroupVersionResource) (informers.GenericInformer, error) {
	if !g.full.Has(r.GroupResource()) {
		return ownershipSource{g.metadata.ForResource(r)}, nil
	}
	i, err := g.shared.ForResource(r)
	if err != nil {
		return nil, fmt.Errorf("informer of %s: %w", r, err)
	}
	return ownershipSource{i}, nil
}

// Start implements informerfactory.InformerFactory.
func (g *garbageInformers) Start(stop <-chan struct{}) {
	g.shared.Start(stop)
	g.metadata.Start(stop)
}
