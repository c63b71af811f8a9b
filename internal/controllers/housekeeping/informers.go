package housekeeping

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
)

// trim drops managedFields, which no controller reads, before an object enters a cache.
func trim(obj any) (any, error) {
	if m, err := meta.Accessor(obj); err == nil && m.GetManagedFields() != nil {
		m.SetManagedFields(nil)
	}
	return obj, nil
}

// narrow returns a factory of informers which hold only what the selector selects, for the
// controllers that need a few objects of a kind of which there may be many and large ones.
func (e *environment) narrow(name, namespace string, selector fields.Selector) (informers.SharedInformerFactory, error) {
	client, err := e.clients.kubernetes(name)
	if err != nil {
		return nil, err
	}
	f := informers.NewSharedInformerFactoryWithOptions(client, 0,
		informers.WithNamespace(namespace),
		informers.WithTransform(trim),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.FieldSelector = selector.String() }))
	e.selected = append(e.selected, f)
	return f, nil
}

func (e *environment) secretsOfType(name, namespace string, t corev1.SecretType) (informers.SharedInformerFactory, error) {
	return e.narrow(name, namespace, fields.OneTermEqualSelector("type", string(t)))
}

// sharedResources are those whose full objects are in the shared informers anyway, because a
// controller of ours, a row of the table or the scheduler reads them. Watching these a second time
// for the garbage collector would cost more than sharing; of all others it watches the metadata.
func sharedResources() sets.Set[schema.GroupResource] {
	s := sets.New[schema.GroupResource]()
	for group, resources := range map[string][]string{
		"": {"endpoints", "namespaces", "nodes", "persistentvolumeclaims", "persistentvolumes",
			"pods", "serviceaccounts", "services"},
		"apps":                      {"controllerrevisions", "daemonsets", "deployments", "replicasets"},
		"certificates.k8s.io":       {"certificatesigningrequests"},
		"coordination.k8s.io":       {"leases"},
		"discovery.k8s.io":          {"endpointslices"},
		"policy":                    {"poddisruptionbudgets"},
		"rbac.authorization.k8s.io": {"clusterroles"},
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
		return g.metadata.ForResource(r), nil
	}
	i, err := g.shared.ForResource(r)
	if err != nil {
		return nil, fmt.Errorf("informer of %s: %w", r, err)
	}
	return i, nil
}

// Start implements informerfactory.InformerFactory.
func (g *garbageInformers) Start(stop <-chan struct{}) {
	g.shared.Start(stop)
	g.metadata.Start(stop)
}

// rootCAName is the ConfigMap which upstream's publisher keeps in every namespace.
var rootCAName = fields.OneTermEqualSelector(metav1.ObjectNameField, "kube-root-ca.crt")

var _ cache.TransformFunc = trim
