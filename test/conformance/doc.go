// Package conformance runs specs of upstream's end-to-end suite against a small cluster: the real
// binary, containerd and kubectl on two nodes. `make conformance` builds what it needs, the suite
// itself from the module in test/upstream/suite and its images from Debian packages, and calls it:
//
//	sudo make conformance                                             the DaemonSet specs
//	sudo make conformance FOCUS='\[NodeConformance\] \[Conformance\]' PROCS=4
//
// FOCUS and SKIP are regular expressions over the specs' full names; PROCS is how many run at once
// (those marked [Serial] run alone, after the others). What the suite printed and its report stay
// in bin/conformance/report. It takes minutes and is no part of `make test`.
package conformance
