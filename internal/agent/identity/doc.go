// Package identity gets a node its certificates and keeps them fresh.
//
// The agent calls, in this order:
//
//	New      at start; nothing is read or asked yet
//	Run      in the background: loads the identity on disk, or joins with the token; from then on it
//	         renews certificates well before they run out
//	Config   for every client, at any time: requests wait for the identity, and follow renewals
//	Serving  once the Node's status has the addresses: the server checks them
//
// Joining trusts nothing but the join token: it names the server's CA by hash, the server sends its CA along in
// the TLS handshake, and the machine's key is on disk before it is used, so that a join that was cut off is taken
// up with the same key, to which the server has given the name. After that the token is not needed any more.
//
// What waiting may cure is waited for with a log line (server unreachable or not ready, request pending, clock
// wrong, token file not there yet); what it cannot is returned at once in one clear sentence, or tried again at longer
// and longer intervals by a service (Options.Persistent).
//
// The package never registers the Node and never decides about its name.
package identity
