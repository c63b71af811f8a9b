// Package logs keeps the logs of this node's running containers from filling its disk, as the
// kubelet does: https://kubernetes.io/docs/concepts/cluster-administration/logging/#log-rotation
//
//	0.log ─ rename ─> 0.log.20261121-180000 ─ next rotation ─> 0.log.20261121-180000.gz ─> removed
//	  └─ the runtime is told to open 0.log anew
//
// One rotation back the text stays as it is, so that readers and log shippers can finish with it.
// internal/agent runs a Rotator; internal/agent/pods says which logs there are and removes those of
// containers that are gone, rotated parts included.
package logs
