// Package nodehealth is the shell around the node health machine (internal/decide/nodehealth): it watches nodes,
// their leases and pods, feeds facts in, performs the actions that come out, and reports how they went. It decides
// nothing itself.
//
//	informers ──facts──> machine.Set (one lock) ──Next──> Actions
//	                        ^                                │
//	                        └──── reports ── goroutines, bounded: patches, deletes
//
// A renewed lease goes into the machine and wakes nobody. Every other fact wakes the loop, which asks the machine
// what is to be done. The pods of a node are found through an index of the shared informer, and only when the node
// is in trouble. Nothing is done per node and tick.
//
// Writes to a node carry the version that they were decided for, so that none overwrites what a node has just said
// of itself; deletes carry the pod's UID.
//
// Started by internal/controllers, once per term of leadership. It replaces upstream's node lifecycle and taint
// eviction controllers, and writes the events that kubectl's users know from them, except one for every node that
// joins or leaves.
package nodehealth
