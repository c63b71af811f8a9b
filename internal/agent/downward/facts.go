package downward

import corev1 "k8s.io/api/core/v1"

// Facts is what a pod's own object does not say at the time its containers are
// made: the node it runs on and the addresses it was given.
type Facts struct {
	// NodeName is the name of this node.
	NodeName string
	// HostIPs are the node's addresses, the primary one first.
	HostIPs []string
	// PodIPs are the pod's addresses, the primary one first. A pod on the host's
	// network may leave them empty: it then has the node's.
	PodIPs []string
	// Allocatable is what the node offers to pods; a container without a limit
	// sees it as its limit.
	Allocatable corev1.ResourceList
}
