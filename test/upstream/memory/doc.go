// Package memory is an API server in memory with the four kinds that a DaemonSet controller works on: nodes,
// pods, DaemonSets and ControllerRevisions. It keeps what a controller relies on (versions that rise, UIDs,
// conflicts, preconditions, graceful deletion, watches in order, 410 Gone) and is cheap enough to measure
// controllers on: client-go's fake clientset records and copies every call.
//
// Client makes it a kubernetes.Interface. A call that it does not serve panics with a nil pointer, so that none
// is answered with nothing by mistake.
package memory
