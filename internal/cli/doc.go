// Package cli is the command line of everynode: it turns flags into options, wires the parts of
// the program together and says what happens in words a person can act on.
//
// It decides nothing about pods or nodes. cmd/everynode calls Main; nothing else imports it. The
// parts of `everynode up` that are more than flags lie below: layout (where things are),
// containerd (the runtime), supervise (the processes), teardown (leaving nothing behind).
package cli
