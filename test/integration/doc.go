// Package integration runs the control plane in the test's own process, with an embedded etcd and
// the real API server, controllers and scheduler, on nodes that are only objects: no container
// runtime, no root, no network beyond loopback. What needs those is in test/e2e.
package integration
