package nodehealth

import (
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TrimLease takes from a node's lease, before it enters a cache, all that neither a node's health nor garbage
// collection reads: there is one for each node, and each is replaced every few seconds. Other leases stay whole.
func TrimLease(l *coordinationv1.Lease) {
	if l.Namespace != corev1.NamespaceNodeLease {
		return
	}
	l.ObjectMeta = metav1.ObjectMeta{
		Namespace: corev1.NamespaceNodeLease, Name: l.Name, UID: l.UID, ResourceVersion: l.ResourceVersion,
		OwnerReferences: l.OwnerReferences, Finalizers: l.Finalizers, DeletionTimestamp: l.DeletionTimestamp,
	}
	for i := range l.OwnerReferences {
		if o := &l.OwnerReferences[i]; o.Kind == "Node" && o.APIVersion == "v1" && o.Name == l.Name {
			o.Kind, o.APIVersion, o.Name = "Node", "v1", l.Name // one string for all, instead of one each
		}
	}
	l.Spec = coordinationv1.LeaseSpec{RenewTime: l.Spec.RenewTime}
}
