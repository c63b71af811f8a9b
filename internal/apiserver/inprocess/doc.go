// Package inprocess is an HTTP transport to a handler of this process: what a client of the API server's own process
// asks never becomes bytes on a connection. A request runs through every filter, like one that came by TLS, with the
// credentials it carries; only encryption, framing and the kernel are left out.
//
// It is used by internal/apiserver for its loopback client. It decides nothing, and does not reach anybody else.
package inprocess
