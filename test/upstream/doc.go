// Package upstream holds everynode against Kubernetes' own code, in a module of its own (k8s.io/kubernetes).
// Nothing imports it; its tests are run by make unit.
//
//	placement_test.go    placement against NodeShouldRunDaemonPod, on random nodes and templates
//	revision_test.go     revision hashes, names and data against upstream's
//	binding_test.go      pods that are created bound against the scheduler's filters
//	history_test.go      both controllers through the same random histories: the same at rest
//	differences_test.go  where ours deliberately does otherwise
//
// history_test.go and differences_test.go run both controllers whole, each on an API server in memory (package
// memory) and in virtual time (testing/synctest). The table of both controllers' costs in docs/performance.md is
// made by package bench.
package upstream
