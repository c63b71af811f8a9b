// Package explain says why a DaemonSet is or is not on each node, and what applying a manifest would do, as
// values that print as a table or as JSON.
//
// It decides nothing itself. Both answers come from the machines that run the cluster
// (internal/decide/placement and internal/decide/daemonset), fed with listed objects instead of watched ones: Why
// asks the machine for its verdicts and adds what the pods themselves say (trouble.go); NewPlan lets the machine
// work against a cluster in memory, in which every pod comes up at once, until it has nothing more to do
// (rehearsal.go). So neither can say anything that the controller would not do.
//
//	gather.go    what is listed, and no more than is needed; any Kubernetes API server will do
//	dryrun.go    a manifest, as the server would store it
//	why.go       verdicts           summary.go   their first line
//	plan.go      what would be done rehearsal.go how that is found out
//	print.go     tables and JSON
//
// Callers are the commands why and plan. The package writes nothing to a server: its only writes are dry runs.
package explain
