// Package cri connects the agent to a container runtime over the Container
// Runtime Interface, keeps the connection, and turns the usual ways in which it
// fails (no socket, no permission, CRI plugin off) into errors that say what to do.
//
// The agent's other packages use the upstream interfaces
// (k8s.io/cri-api/pkg/apis) that a Connection carries, so that cri/fake can stand
// in for a runtime in their tests. The package decides nothing about pods.
package cri
