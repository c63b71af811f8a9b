// Package metrics names what this agent counts and times of its own work, as the kubelet names the
// same, so that its dashboards and alerts hold here too. The agent's other packages count; the
// node's API (agent/streaming) serves /metrics and /metrics/probes. What pods and the machine use is
// agent/stats' business.
//
// Counting before Register does nothing, which is what tests want.
//
// https://kubernetes.io/docs/reference/instrumentation/metrics/
package metrics
