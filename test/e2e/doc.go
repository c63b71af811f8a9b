// Package e2e tests the program that is shipped: the real binary with real containerd, real
// containers and the stock kubectl, on machines made of namespaces (package cluster).
//
// The tests are behind the build tag e2e and run as root: `make e2e`. EVERYNODE_BIN and
// KUBECTL_BIN name the programs; bin/everynode and bin/kubectl are the defaults.
package e2e
