// Package scheduler places the pods that name no node, by running upstream's kube-scheduler inside
// the server: its default profile, its queue and back-off, its preemption, its events.
//
// Daemon pods that are created already bound never pass here. What neither side has seen of the other yet, both
// know from one ledger of the nodes' room (sharedRoom).
//
// Called by internal/cli, once per term of leadership, on the informers of internal/controllers.
// It serves no HTTP and elects no leader. Four things differ from the kube-scheduler command:
//
//   - Its pod informer is the shared one, seen through a filter that hides ended pods (view); the
//     command opens an informer of its own with a field selector instead.
//   - Kinds that the server does not serve (those of dynamic resource allocation, whose feature
//     gate is locked on since 1.35) must be empty informers in the given factory; a pod that asks
//     for a resource claim then stays pending with a FailedScheduling event that says so
//     (profiles).
//   - Its profile has one plugin more, sharedRoom.
//   - No feature gate needs to be changed, and none is.
package scheduler
