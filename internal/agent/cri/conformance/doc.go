// Package conformance holds a container runtime to what the node agent relies on.
//
// The same suite runs over the fake runtime, in a unit test, and over the real one, in an
// end-to-end test: so what the agent's other tests see of the fake is what a node sees. A runtime
// may do more and answer differently in what the suite leaves open.
package conformance
