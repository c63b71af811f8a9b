// Package offline remembers the pods of DaemonSets that run on this node, with the ConfigMaps and
// Secrets that they use, so that a node that boots with no server in sight runs them all the same.
//
//	pods, objects ──> Keeper ──> DIR/UID.pod (encrypted, 0600)
//	                               │ a start with no server
//	                  agent/pods <─┘ until the server answers, which then has the say
//
// A record is written when the pod or an object that it uses changes, and removed when the pod is to
// leave the node. Nothing else is remembered: no other pods, and no service account tokens. The key
// lies beside the records and never leaves the node: it keeps what is in them from backups of single
// files and from the disk once the key is erased, not from root.
//
// agent/pods says which pods there are, agent/objects has the objects; internal/agent connects them.
package offline
