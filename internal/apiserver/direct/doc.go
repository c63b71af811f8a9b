// Package direct writes pods, DaemonSet statuses and nodes' ranges for the controllers that run inside the server.
//
// A write skips what only a remote client needs: sockets, TLS, encoding and decoding, authentication,
// authorization, flow control and managedFields. It keeps what the rest of the cluster relies on and what an
// operator looks at: defaulting, mutating and validating admission, validation, audit events and request
// metrics, in the order of k8s.io/apiserver's handlers (endpoints/handlers/{create,update,delete}.go). A test
// holds both ways against each other, by the bytes they store and by what they refuse.
//
// Sources are the same for reading: a reflector lists and watches at the registry (source.go), and is given copies of
// what the watch cache holds, as the API would send them.
//
// The controllers reach it through the Writer interface of internal/controllers/daemonset. The package never
// decides what is written, never retries, and never keeps or changes an object that a caller passed in.
package direct
