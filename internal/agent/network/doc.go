// Package network gives the pods of this node a network, and everything on it a way to the API
// server. internal/agent runs it.
//
//	         pods                    the API server(s)
//	          │ veth                        ▲
//	┌─────────┴─────────┐   10.43.0.1:443   │ TCP
//	│ bridge everynode0 ├──── on lo ──> forwarder ──> live servers, --server last
//	│ .1 of the podCIDR │
//	└─────────┬─────────┘
//	          │ ip_forward
//	          ├── to another node's podCIDR: via that node's address (host-gw routes), no NAT
//	          └── elsewhere: masquerade, one rule a node
//
// It writes the CNI configuration that the container runtime runs plugins by (bridge, host-local,
// portmap), as soon as the server has given this node a pod range; keeps routes to the other nodes'
// ranges in step with the list the server publishes, at a cost that follows the changes; and makes
// the resolver configuration of pods. What it puts into the kernel carries a mark (interface,
// chain and label names, a route protocol of its own), so that a later start, or Cleanup without
// any agent, knows it again.
//
// It never touches what others made, and never decides which pod gets which address: that is
// host-local's.
package network
