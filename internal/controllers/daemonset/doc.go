// Package daemonset is the shell around the DaemonSet machine (internal/decide/daemonset): it watches, feeds
// facts in, performs the actions that come out, and reports how they went. It decides nothing itself.
//
//	reflectors ──events──> inbox ──> one loop ──> per DaemonSet: a machine.Set ──> Actions
//	                         ^                                                        │
//	                         └────────── reports ── goroutines, bounded <─────────────┘
//	                                                (Writer, Client)
//
// One goroutine, the loop, owns every Set, the ledger of the nodes' room and all routing; so the machines need
// no locks and see each object's events in order. Writes run beside it, at most Options.Parallelism at a time
// for all DaemonSets together: that bound, and not a rate, is the back-pressure. A DaemonSet waits its turn in
// a queue, so a large rollout does not starve a small one.
//
// A pod's event reaches its DaemonSet by the owner's UID. A pod without a controller is shown to each DaemonSet
// of its namespace, which adopts it if its selector matches. A node's event touches one slot of each DaemonSet.
//
// No node or pod is kept: the loop takes the few words from each that it needs, and lets it go (follow.go). What
// truly needs a whole object (an adoption, a doubtful write) reads it live.
//
// Whoever runs the controller makes sure that only one does at a time (a Lease). Should two overlap for a
// moment, names that follow from what they make keep them from making two pods for one node; and a new one begins
// with a consistent list of everything (sources.go).
package daemonset
