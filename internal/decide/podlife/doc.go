// Package podlife decides the life of one pod on its node: which steps its
// sandbox, images, volumes and containers need next and why, what status to
// report, and when to look again.
//
//	pod ──┐
//	runtime state ─┐
//	probe results ─┼─> Decide(facts, now) ─> Plan{Steps, Status, Wake}
//	failures ──────┘
//
// It is pure: equal facts and time give equal plans. It has no clients, clock,
// goroutines or logger. Everything it must remember over a restart of the agent is
// a fact that the shell can read back from the container runtime (attempt
// numbers, the back-off of each container) or from the API (the last status), so
// that a restarted agent neither starts nor counts anything twice.
//
// The caller's duties, which internal/agent/pods performs:
//
//  1. Gather Facts; put every step it has begun and not finished into InFlight.
//  2. Call Decide. Begin each of the plan's steps; none waits for another, for the
//     plan holds only steps that may run now.
//  3. When a step ends, make what it changed visible in the facts (list the
//     runtime), remove it from InFlight, and record or clear its Failure.
//  4. Report the Status, if it changed and not before Plan.Report.
//  5. Decide again when any fact changes, and at Plan.Wake.
//
// A pod goes through these stages:
//
//	waiting ─> sandbox ─> init containers ─> containers ─┐
//	   │          │             │                 │      │ restarts, probes
//	   └──────────┴─────────────┴───── ending <───┴──────┘
//	                                     │ stop containers, sidecars last
//	                                     │ stop sandbox
//	                                     │ tear down volumes and cgroup
//	                                     │ final status, API delete (if deleted)
//	                                     └ remove sandbox, logs: done (if gone)
//
// A pod ends when it is deleted or gone, when its deadline has passed, when it was
// rejected or evicted, and when none of its containers will run again.
package podlife
