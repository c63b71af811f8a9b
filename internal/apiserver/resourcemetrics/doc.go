// Package resourcemetrics serves the resource metrics API, metrics.k8s.io/v1beta1: what nodes and
// pods use of processors and memory, for `kubectl top` and whoever scales by it. It takes
// metrics-server's place and keeps to its conventions.
// https://kubernetes.io/docs/tasks/debug/debug-cluster/resource-metrics-pipeline/
//
// Nothing is fetched unless somebody asks, and then only from the nodes the answer is about: their
// agents' (or kubelets') stats/summary, a bounded number at a time. What was fetched serves all who
// ask for a while. A node that does not answer is missing in a list, or shown with what it said
// last; nobody waits for it twice.
//
//	request ─> nodes and pods of the informers ─> Cache ─> Source ─> the nodes' agents
//
// internal/apiserver installs Storage. The package writes nothing and has no goroutine when idle.
package resourcemetrics
