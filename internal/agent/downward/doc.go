// Package downward answers what a pod may learn of itself and of its node: the
// fields of the downward API (fieldRef) and the resources of its containers
// (resourceFieldRef), as files (agent/volumes) and as environment variables
// (agent/env) show them.
//
// It only reads what it is given: it asks no server and keeps nothing.
package downward
