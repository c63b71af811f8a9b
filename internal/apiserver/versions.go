package apiserver

import (
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	api "k8s.io/kubernetes/pkg/apis/core"

	"github.com/everynode/everynode/internal/store"
)

// sharedVersions are the kinds of which there are many objects that change often: what a rollout and the nodes'
// heartbeats make watch caches hold is mostly what the versions before said already.
func sharedVersions() map[schema.GroupResource]store.Share {
	return map[schema.GroupResource]store.Share{
		{Resource: "pods"}:  sharePod,
		{Resource: "nodes"}: shareNode,
	}
}

// keep puts before in the place of after if they are equal to the last bit.
func keep[T any](before T, after *T) {
	if reflect.DeepEqual(before, *after) {
		*after = before
	}
}

// keepEach does so for each element that has stayed where it was.
func keepEach[T any](before, after []T) {
	for i := range min(len(before), len(after)) {
		keep(before[i], &after[i])
	}
}

func shareMeta(before, after *metav1.ObjectMeta) {
	keep(before.Name, &after.Name)
	keep(before.Namespace, &after.Namespace)
	keep(before.Labels, &after.Labels)
	keep(before.Annotations, &after.Annotations)
	keep(before.OwnerReferences, &after.OwnerReferences)
	keep(before.Finalizers, &after.Finalizers)
	keepEach(before.ManagedFields, after.ManagedFields)
}

func sharePod(b, a runtime.Object) {
	before, is := b.(*api.Pod)
	after, too := a.(*api.Pod)
	if !is || !too {
		return
	}
	shareMeta(&before.ObjectMeta, &after.ObjectMeta)
	keep(before.Spec.Volumes, &after.Spec.Volumes)
	keep(before.Spec.InitContainers, &after.Spec.InitContainers)
	keep(before.Spec.Containers, &after.Spec.Containers)
	keep(before.Spec.Tolerations, &after.Spec.Tolerations)
	keep(before.Spec.NodeSelector, &after.Spec.NodeSelector)
	keep(before.Spec.Affinity, &after.Spec.Affinity)
	keep(before.Spec.SecurityContext, &after.Spec.SecurityContext)
	keep(before.Spec.NodeName, &after.Spec.NodeName)
	keep(before.Spec.ServiceAccountName, &after.Spec.ServiceAccountName)
	keep(before.Status.Conditions, &after.Status.Conditions)
	keep(before.Status.InitContainerStatuses, &after.Status.InitContainerStatuses)
	keep(before.Status.ContainerStatuses, &after.Status.ContainerStatuses)
	keep(before.Status.PodIPs, &after.Status.PodIPs)
	keep(before.Status.HostIPs, &after.Status.HostIPs)
}

func shareNode(b, a runtime.Object) {
	before, is := b.(*api.Node)
	after, too := a.(*api.Node)
	if !is || !too {
		return
	}
	shareMeta(&before.ObjectMeta, &after.ObjectMeta)
	keep(before.Spec, &after.Spec)
	keep(before.Status.Capacity, &after.Status.Capacity)
	keep(before.Status.Allocatable, &after.Status.Allocatable)
	keepEach(before.Status.Conditions, after.Status.Conditions)
	keep(before.Status.Addresses, &after.Status.Addresses)
	keep(before.Status.NodeInfo, &after.Status.NodeInfo)
	keepEach(before.Status.Images, after.Status.Images)
}
