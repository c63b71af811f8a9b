// Package cgroups makes, limits and removes the cgroups of pods, below a parent
// of this node's own so that several nodes can share a machine:
//
//	/everynode-NODE/podUID             guaranteed
//	/everynode-NODE/burstable/podUID
//	/everynode-NODE/besteffort/podUID
//
// The runtime puts containers below a pod's cgroup; it neither limits nor removes
// the pod's. The pods' worker (agent/pods) calls Ensure before it makes a sandbox
// and Remove after the last container is gone. It works on cgroup v1 and v2 by the
// cgroupfs driver and knows nothing of containers.
package cgroups
