// Package objects hands out the ConfigMaps, Secrets and service account tokens
// that this node's pods reference.
//
// The node authorizer lets a node read only what a pod bound to it references,
// one object at a time. So every object is watched singly (by its name as field
// selector), from the first pod that references it to the last, shared among
// them. Callers are agent/volumes and agent/env, through Source; the pods'
// worker calls Register and Unregister.
//
// It never reads an object that no pod of this node references, never lists a
// namespace, and writes nothing to the disk.
package objects
