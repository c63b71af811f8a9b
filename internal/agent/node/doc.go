// Package node keeps this machine's Node object true: it registers it, reports what the machine has
// and how it is (capacity, addresses, versions, conditions), and renews its lease, by which the
// control plane knows that the node lives. internal/agent runs it.
//
// It decides nothing about pods and touches nothing on the machine: it measures and reports. A Node
// that is deleted through the API is not made again until the agent restarts, as with the kubelet.
package node
