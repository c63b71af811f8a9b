// Package placement decides whether a daemon pod of a given template may be on a given node, and if not,
// which rule says so.
//
// A template is compiled once (Compile): its selectors are parsed, its tolerations completed with those
// every daemon gets. Judge then costs the same for every node, allocates nothing and answers with an
// Outcome; Explain runs the very same rules and names the exact taint, selector or affinity term, and what
// the node has instead. The rules, one file each:
//
//	nodename.go  spec.nodeName
//	selector.go  nodeSelector
//	affinity.go  required node affinity: matchExpressions and matchFields
//	taints.go    NoSchedule and NoExecute taints against tolerations (tolerations.go: the automatic ones)
//
// Eligibility says where a daemon belongs; room says whether it fits there right now. A Ledger keeps what
// each node has left (resources, host ports, number of pods) counting bound pods and our own writes not yet
// seen, so that a daemon pod can be created already bound. Template.NeedsScheduler names what only the
// scheduler can judge.
//
// Callers are the DaemonSet machine, its shell, and everything that explains or previews. The package is
// pure: it never reads a clock, talks to a server, logs, or changes what it is given. The semantics are those
// of apps/v1: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/#taints-and-tolerations
package placement
