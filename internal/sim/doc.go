// Package sim is a seeded world in which the real DaemonSet machine (internal/decide/daemonset, and placement
// with its ledger) runs on virtual time: nodes and what befalls them, an API that stores, watches that lag, and
// writes that go astray. It answers "how would this roll out over 20,000 nodes?" and "does the machine keep its
// promises whatever happens?".
//
//	 users, mishaps (faults.go)      controllers (controller.go)      scheduler   nodes (fleet.go)
//	            │                        │ writes: slow, refused,       │              │
//	            v                        v lost, late                   v              v
//	┌──────────────────────────── the API (store.go) ─────────────────────────────────────────────┐
//	└──────┬─────────────────────────────────────────┬────────────────────────────┬───────────────┘
//	       │ each change, at once                    │ watches (view.go): late, repeated, stalled,
//	       v                                         v broken off and listed anew; one for each consumer
//	  invariants (invariants.go)                controllers, scheduler
//
// Only the machine is real. The shell around it is played by controller.go, which does what
// internal/controllers/daemonset does, in one thread. Everything that is drawn comes from one seeded generator,
// and everything that happens is an event in one queue, so a seed names a history: same options, same bytes.
//
// What is held against the machine, at every change of a pod:
//   - never two pods of the DaemonSet that have not ended on one node; while surging, never more than two that
//     are not on their way out;
//   - the update's own deletes never make more nodes unavailable at a time than maxUnavailable;
//
// and when the mishaps are over and the queue has run empty:
//   - the world is as a plain look at every node says it should be (oracle.go), the status in the API included;
//   - the plan is empty, and so is that of a new leader.
//
// Called by internal/cli (everynode simulate) and by tests. It reads no clock, and starts no goroutine.
package sim
