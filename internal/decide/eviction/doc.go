// Package eviction decides what a node that runs short of memory, disk or process ids reports,
// and which pod has to go.
//
//	what is available ──> Monitor.Observe ──> conditions; the threshold to act on
//	pods, what they use ─> OverLimit, Rank ──> evictions, each with its message
//
// The rules, words and defaults are the kubelet's, with one addition: too few process ids count as
// pressure by default.
// https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/
//
// It is pure: internal/agent/pressure measures, reclaims what no pod needs and evicts; the control
// plane turns the conditions into taints.
package eviction
