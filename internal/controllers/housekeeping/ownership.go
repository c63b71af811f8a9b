package housekeeping

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
)

// ownershipSource is an informer for the garbage collector, which is told of an update only when it changes what the
// collector keeps: owners, finalizers, whether the object is being deleted. Leases are renewed and statuses written all
// the time, and would each pass through its one queue.
type ownershipSource struct{ informers.GenericInformer }

// Informer implements informers.GenericInformer.
func (s ownershipSource) Informer() cache.SharedIndexInformer {
	return ownershipInformer{s.GenericInformer.Informer()}
}

type ownershipInformer struct{ cache.SharedIndexInformer }

func (i ownershipInformer) AddEventHandler(h cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	return i.SharedIndexInformer.AddEventHandler(onlyOwnership{h})
}

func (i ownershipInformer) AddEventHandlerWithResyncPeriod(h cache.ResourceEventHandler, d time.Duration) (cache.ResourceEventHandlerRegistration, error) {
	return i.SharedIndexInformer.AddEventHandlerWithResyncPeriod(onlyOwnership{h}, d)
}

func (i ownershipInformer) AddEventHandlerWithOptions(h cache.ResourceEventHandler, o cache.HandlerOptions) (cache.ResourceEventHandlerRegistration, error) {
	return i.SharedIndexInformer.AddEventHandlerWithOptions(onlyOwnership{h}, o)
}

type onlyOwnership struct{ cache.ResourceEventHandler }

// OnUpdate implements cache.ResourceEventHandler.
func (o onlyOwnership) OnUpdate(before, after any) {
	if !sameOwnership(before, after) {
		o.ResourceEventHandler.OnUpdate(before, after)
	}
}

// sameOwnership is false for what it cannot read.
func sameOwnership(before, after any) bool {
	a, err := meta.Accessor(before)
	if err != nil {
		return false
	}
	b, err := meta.Accessor(after)
	if err != nil {
		return false
	}
	return a.GetUID() == b.GetUID() && (a.GetDeletionTimestamp() == nil) == (b.GetDeletionTimestamp() == nil) &&
		slices.Equal(a.GetFinalizers(), b.GetFinalizers()) && slices.EqualFunc(a.GetOwnerReferences(), b.GetOwnerReferences(), sameOwner)
}

func sameOwner(a, b metav1.OwnerReference) bool {
	return a.UID == b.UID && a.Name == b.Name && a.Kind == b.Kind && a.APIVersion == b.APIVersion &&
		ptr.Equal(a.Controller, b.Controller) && ptr.Equal(a.BlockOwnerDeletion, b.BlockOwnerDeletion)
}
