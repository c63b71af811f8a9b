// Package teardown removes from a machine everything that a node of `everynode up` made there, and
// with purge the data too.
//
// Pods goes the proper way: it asks the container runtime, started once more if it has to be, to
// stop and remove every pod. Sweep takes what that left, or all of it where no runtime can be
// had: processes, mounts, cgroups, network. Both find what is ours by paths and names that nobody
// else uses (package layout, the cgroup of the node), never by guessing, and both may be called
// when there is nothing left. The command down calls them; the agent and the server must be
// stopped before.
package teardown
