// Package volumes makes the volumes of this node's pods and hands their paths to
// the runtime: emptyDir, hostPath, configMap, secret, projected, downwardAPI and
// claims bound to local or hostPath volumes, with sub paths, ownership and live
// updates.
//
// The pods' worker (agent/pods) calls Setup before the first container of a pod,
// Mounts before each container, Teardown after the last one; Run keeps contents
// fresh. Everything on disk lies under Root/UID and every step may be repeated
// after a kill at any point.
//
// It never follows a symlink out of a volume, never deletes through a mount, and
// never starts, stops or looks at a container.
package volumes
