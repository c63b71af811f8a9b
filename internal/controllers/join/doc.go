// Package join judges the CertificateSigningRequests of machines that join and of nodes that renew.
//
//	a join token's holder asks for system:node:NAME   approved if NAME is free, which reserves it
//	system:node:NAME asks for system:node:NAME        approved: a renewal
//	system:node:NAME asks for a serving certificate   approved within its name and its Node's addresses
//
// Everything else that comes from those two is denied with a message for the person who reads the agent's log.
// Requests of anybody else, and for other signers, are left to people (`kubectl certificate approve`).
//
// A name is taken when a Node of that name exists. The approver reserves a name by creating the Node, which the API
// does for one requester only, and remembers in it the public key that the name was given to: an agent that was
// cut off before it got its certificate comes back with the same key and is let in. Deleting the Node frees the
// name.
//
// The server's controllers run it in the elected process, next to upstream's signer; it never signs anything.
package join
