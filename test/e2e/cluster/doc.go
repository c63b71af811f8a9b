// Package cluster makes small clusters for tests on one machine, and leaves nothing of them behind.
//
// A Machine is a set of namespaces (mount, network, PID, host name, IPC) with a /run, /var/lib and
// /var/log of its own, so that programs with fixed paths run in several of them at once, and next
// to an everynode that the real machine runs. The namespaces have no names: they live as long as
// the machine's init process, and that gets SIGKILL when the test process dies, in whatever way.
// What the kernel does not clean up then, cgroups and files, carries the test's process id in its
// name and is removed by the next run (Main).
//
// A Cluster is a switch, which is the Machine that the server runs in, and nodes that are plugged
// into it:
//
//	switch  br0 10.206.0.1/24   everynode server --listen 10.206.0.1:6443
//	node1   eth0 10.206.0.11    containerd, everynode agent
//	node2   eth0 10.206.0.12    …
//
// Tests of test/e2e use it; it asserts nothing itself but that things start.
package cluster
