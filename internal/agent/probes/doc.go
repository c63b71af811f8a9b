// Package probes runs the startup, readiness and liveness probes of one running
// container: http, tcp, exec and grpc, with initial delay, period, timeout and
// thresholds.
//
// The pods' worker (agent/pods) calls Watch for each container that podlife wants
// probed, and feeds what it reports back as facts. What follows from a failed probe
// is podlife's decision; this package never stops anything.
package probes
