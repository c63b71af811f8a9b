// Package images gets container images onto the node: pull policies, pull
// secrets, one pull at a time for one image, a bounded number at once, archives
// imported at start, and the pause image, which is built in process so that a node
// needs no registry to run pods.
//
// An image that was pulled with a secret is had by those who have the secret: Provenance remembers.
//
// A Collector removes images that nothing uses any more when their disk fills up.
//
// The pods' worker (agent/pods) calls Ensure before each container; the agent calls
// Preload once the runtime answers. When to try again is podlife's decision.
package images
