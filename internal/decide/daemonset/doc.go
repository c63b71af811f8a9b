// Package daemonset is the DaemonSet machine: it decides what one DaemonSet needs next.
//
// A Set is fed facts (SetSpec, SetNode, SetPod and their removals, and how our own writes went) and asked for
// work with Next, which returns it as a value: creates, deletes, adoptions, the status to write, and when to
// ask again. Whoever drives it (the controller, a preview, a simulation) performs the actions and reports back.
//
// # The driver's duties, in order
//
//  1. Feed every fact in, in any order between objects, in watch order within one. Facts must start from a
//     consistent list: a Set may act on what it is not told.
//  2. Call Next, with the current time and how many actions may be performed now.
//  3. Perform the actions, in any order and in parallel, and report each with Created, CreateFailed,
//     DeleteFailed, Gone, ClaimFailed, Found and StatusDone. A delete that worked needs no report: seeing it is one.
//  4. Call Next again after any fact, any report, and at Actions.WakeUp.
//
// # The life of a slot
//
// A Set has one slot a node. What a slot does depends on nothing but its own facts and, while an update rolls,
// on a budget kept in counters; so an event costs the same whatever the number of nodes.
//
//	                  ┌────────────────── not open to the template ──────────────────┐
//	                  v                                                              │
//	             ┌─────────┐  node opens   ┌─────────┐  create (maybe bound)  ┌──────────┐
//	node joins ─>│  empty  │──────────────>│ missing │───────────────────────>│ creating │
//	             └─────────┘               └─────────┘<───────────────────────└──────────┘
//	                  ^                         ^      failed: back-off,           │ the pod is
//	                  │                         │      name taken: next attempt    │ seen
//	                  │ closed (Out)            │                                  v
//	             ┌──────────┐   pod gone, open  │                             ┌──────────┐
//	             │ deleting │───────────────────┘                             │ running  │
//	             │          │<────────────────────────────────────────────────│          │
//	             └──────────┘   excluded (Out) · excess · outdated, when the  └──────────┘
//	                  ^         budget allows                                      │
//	                  │                                                            │ phase
//	                  │         after the back-off; its successor is               v
//	                  │         created at once, under another name           ┌──────────┐
//	                  └───────────────────────────────────────────────────────│  ended   │
//	                                                                          └──────────┘
//
// # Never two on a node
//
// A create that was handed out is a promise: until the pod is seen, or known not to exist, its slot decides
// nothing more (the freshness gate). So a stale cache cannot make a second pod. Nor can a lost answer or a
// deposed leader: a pod's name follows from the DaemonSet, the node, the revision and the attempt, and the
// attempt follows from the pods that are there, so that whoever repeats the create meets AlreadyExists.
// A pod that was asked to go counts as there until it is seen gone.
//
// # Rules
//
// One rule is one file: present.go (what a node's pods should be), ended.go (failed and succeeded pods),
// rollingupdate.go and surge.go (the budget), claim.go (adoption and release), freshness.go, slowstart.go,
// statuspace.go, counters.go (the status). New rules belong beside them.
//
// The package is pure: no client, clock, goroutine, randomness or logger. Equal facts give equal bytes: order
// is by name everywhere. oracle_test.go holds a plain second implementation that recomputes all of it.
package daemonset
