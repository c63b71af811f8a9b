// Package nodehealth decides what a node's silence, its conditions and its taints lead to: which nodes become
// Unknown, which taints they carry, which pods count as not ready, and which are evicted when.
//
// A Set is fed facts (SetNode, Renewed, SetPod and their removals, and how our own writes went) and asked for work
// with Next, which returns it as a value. Whoever drives it (the controller, a simulation) performs the actions
// and reports back.
//
// # The driver's duties, in order
//
//  1. Feed every fact in, in any order between objects, in watch order within one. Facts start from a consistent
//     list. Options.Pods finds the pods of a node; it may be ahead of SetPod, never behind it.
//  2. Call Next with the current time and the number of actions that may be performed now.
//  3. Perform the actions, in any order and in parallel, and report each: Written or Failed for a node, PodDone or
//     PodFailed for a pod.
//  4. Call Next again after any fact, any report, and at Actions.WakeUp.
//
// # The life of a node
//
//	                         Ready=True                     lease late: conditions become Unknown
//	 first sight ─────────> ┌─────────┐ ──────────────────────────────────> ┌─────────────┐
//	(not-ready:NoSchedule   │  ready  │                                     │ unreachable │
//	 until it says more)    └─────────┘ <────────────────────────────────── └─────────────┘
//	      │                   ^     │         the node says Ready=True             ^  │
//	      │ Ready=False       │     │ Ready=False                        lease late│  │Ready=False
//	      │                   │     v                                              │  v
//	      │                 ┌─────────────┐ ───────────────────────────────────────┘  │
//	      └───────────────> │  not ready  │ <─────────────────────────────────────────┘
//	                        └─────────────┘
//
// A node that is not ready or unreachable gets that taint as NoSchedule at once, and as NoExecute when its turn
// comes (disruption.go): evicting is what cannot be undone, so it is slow when many nodes are in trouble, and not
// done when all are, because then the trouble is more likely ours. A node that is ready again loses both at once.
//
// # What it costs
//
// A renewed lease is one map lookup and one assignment. Deadlines lie in a heap, and are looked at when they come
// up, not when they move: a node that keeps renewing costs one look a grace period, and nobody scans all nodes.
//
// # Rules
//
// One rule is one file: late.go (silence), taints.go (conditions to taints), disruption.go (how fast NoExecute is
// handed out), tolerate.go and pods.go (evictions, pods' readiness), labels.go.
//
// The semantics are those of upstream's node lifecycle and taint eviction controllers,
// https://kubernetes.io/docs/concepts/architecture/nodes/#node-controller, with a whole fleet as one zone. It
// differs where theirs needs a lucky moment: a node without any condition keeps its not-ready taint; no node is
// evicted from for a silence that this Set has not witnessed itself, after a start, a pause of the process, or the
// end of a full disruption; a second taint shortens a pod's stay.
//
// The package is pure: no client, clock, goroutine, randomness or logger. Equal facts give equal bytes: order is
// by time and name everywhere.
package nodehealth
