// Package pods runs the pods that are bound to this node: one worker a pod UID
// gathers what is known of it, lets the pure machine internal/decide/podlife
// decide, performs the steps through the container runtime, and reports.
//
//	API watch ─┐
//	exits, list ├─> worker (one goroutine a pod): facts → podlife.Decide → steps
//	probes     ─┤        ▲                                  │        │
//	timers     ─┘        └───────── results ────────────────┘        └─> status, events
//
// A worker never waits for a step: steps run beside it and come back as facts, so
// a deletion is seen while an image is being pulled. All that must outlive the
// agent is kept in the runtime, as labels and annotations of sandboxes and
// containers; a restarted agent finds it there and starts, stops and counts
// nothing twice.
//
// internal/agent wires it to volumes, network and the API server. The package
// never decides about other nodes' pods, and never removes anything before the
// API server has given it one full, consistent list.
package pods
