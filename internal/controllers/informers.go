package controllers

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"time"
)

// NewInformers makes the informers which all led work shares. They are not started: each of its
// users registers its handlers first, then calls Start (which may be called again).
//
// Objects enter the caches without managedFields, which nobody reads there. Kinds that upstream's
// code insists on watching but the server does not serve are empty informers; see optional.
func NewInformers(ctx context.Context, c *rest.Config) (informers.SharedInformerFactory, error) {
	client, err := newClient(c, "shared-informers")
	if err != nil {
		return nil, err
	}
	served, err := servedResources(client.Discovery())
	if err != nil {
		return nil, err
	}
	f := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(trim))
	for resource, o := range optional() {
		if !served.Has(resource) {
			f.InformerFor(o.object, emptyInformer(o))
		}
	}
	return f, ctx.Err()
}

// optionalKind is a kind that may be absent from the server.
type optionalKind struct {
	object, list runtime.Object
}

// optional lists the kinds which upstream's controllers or scheduler watch unconditionally, and
// which the server need not serve. An informer of an absent kind would never sync, and all who
// wait for it would wait forever; dynamic resource allocation, say, cannot be switched off any more.
func optional() map[schema.GroupVersionResource]optionalKind {
	return map[schema.GroupVersionResource]optionalKind{
		corev1.SchemeGroupVersion.WithResource("replicationcontrollers"):  {&corev1.ReplicationController{}, &corev1.ReplicationControllerList{}},
		appsv1.SchemeGroupVersion.WithResource("statefulsets"):            {&appsv1.StatefulSet{}, &appsv1.StatefulSetList{}},
		resourcev1.SchemeGroupVersion.WithResource("resourceclaims"):      {&resourcev1.ResourceClaim{}, &resourcev1.ResourceClaimList{}},
		resourcev1.SchemeGroupVersion.WithResource("resourceslices"):      {&resourcev1.ResourceSlice{}, &resourcev1.ResourceSliceList{}},
		resourcev1.SchemeGroupVersion.WithResource("deviceclasses"):       {&resourcev1.DeviceClass{}, &resourcev1.DeviceClassList{}},
		storagev1.SchemeGroupVersion.WithResource("csidrivers"):           {&storagev1.CSIDriver{}, &storagev1.CSIDriverList{}},
		storagev1.SchemeGroupVersion.WithResource("csinodes"):             {&storagev1.CSINode{}, &storagev1.CSINodeList{}},
		storagev1.SchemeGroupVersion.WithResource("csistoragecapacities"): {&storagev1.CSIStorageCapacity{}, &storagev1.CSIStorageCapacityList{}},
		storagev1.SchemeGroupVersion.WithResource("volumeattachments"):    {&storagev1.VolumeAttachment{}, &storagev1.VolumeAttachmentList{}},
	}
}

// emptyInformer makes an informer that has synced with nothing, and asks no server.
func emptyInformer(o optionalKind) func(kubernetes.Interface, time.Duration) cache.SharedIndexInformer {
	return func(kubernetes.Interface, time.Duration) cache.SharedIndexInformer {
		return cache.NewSharedIndexInformer(emptySource{o.list}, o.object, 0, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	}
}

// emptySource lists nothing, and watches without an event until stopped.
type emptySource struct{ list runtime.Object }

func (s emptySource) List(metav1.ListOptions) (runtime.Object, error) {
	list := s.list.DeepCopyObject()
	l, err := meta.ListAccessor(list)
	if err != nil {
		return nil, err
	}
	l.SetResourceVersion("1")
	return list, nil
}

func (s emptySource) Watch(metav1.ListOptions) (watch.Interface, error) { return watch.NewFake(), nil }

// IsWatchListSemanticsUnSupported makes the reflector list instead of streaming the list.
func (s emptySource) IsWatchListSemanticsUnSupported() bool { return true }

// servedResources asks the server once what it serves.
func servedResources(d discovery.DiscoveryInterface) (sets.Set[schema.GroupVersionResource], error) {
	_, lists, err := d.ServerGroupsAndResources()
	if err != nil {
		return nil, fmt.Errorf("asking the API server which resources it serves: %w", err)
	}
	served := sets.New[schema.GroupVersionResource]()
	for _, l := range lists {
		gv, err := schema.ParseGroupVersion(l.GroupVersion)
		if err != nil {
			return nil, fmt.Errorf("the API server announced group version %q: %w", l.GroupVersion, err)
		}
		for i := range l.APIResources {
			served.Insert(gv.WithResource(l.APIResources[i].Name))
		}
	}
	return served, nil
}

// trim drops managedFields before an object enters a cache.
func trim(obj any) (any, error) {
	if m, err := meta.Accessor(obj); err == nil && m.GetManagedFields() != nil {
		m.SetManagedFields(nil)
	}
	return obj, nil
}

// newClient makes an unthrottled client that calls itself name.
func newClient(c *rest.Config, name string) (kubernetes.Interface, error) {
	cfg := rest.CopyConfig(c)
	cfg.QPS, cfg.Burst, cfg.RateLimiter = -1, 0, nil
	client, err := kubernetes.NewForConfig(rest.AddUserAgent(cfg, name))
	if err != nil {
		return nil, fmt.Errorf("client of %s: %w", name, err)
	}
	return client, nil
}
