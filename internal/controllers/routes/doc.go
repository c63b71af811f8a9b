// Package routes publishes, for the nodes, where each node's pods are: which range of pod addresses
// belongs to which machine. A node may not read other Nodes (the node authorizer is strict), yet
// it needs a route to every one of them.
//
// The list is a few ConfigMaps in the namespace everynode-system, each of 256 ranges at most:
//
//	name        node-routes-003                          the ranges number 768 to 1023 of the cluster's
//	annotation  everynode.io/cluster-cidr: 10.40.0.0/14  the range that all pods are in
//	data        10.43.7.0-24: 192.0.2.7                  a range ("/" written "-") and the node's InternalIP
//
// A range's place depends on the range alone, so that a node event touches one key of one
// ConfigMap, and an agent that watches gets one small object. A burst of events (a fleet that
// joins) is gathered for some 50 ms and written once a ConfigMap; one without any range is deleted.
//
// [table] is the pure part: Nodes in, the ConfigMaps' wanted contents out, O(1) for an event.
// [Controller] watches and writes. At the start, and whenever somebody else changes a ConfigMap,
// it brings the contents back to what the table wants; stale keys go.
//
// It also writes the access rules ([ensureAccess]): every node may read the ConfigMaps of
// everynode-system, and the EndpointSlice default/kubernetes with the API servers' addresses.
// Nothing secret belongs into either.
//
// Called by internal/controllers. It never reads or writes a Node, nor a route of this machine.
package routes
