// Package pki keeps the server's certificate authority, the certificates it issues for the server itself, the key
// that signs service account tokens, and kubeconfigs made from them.
//
// The server calls it at start, before anything listens. Everything lies in one directory (0700) in files of mode
// 0600, written atomically:
//
//	ca.key, sa.key   made first
//	ca.crt           made last of the three: its presence says that the set is complete
//	NAME.pem         a leaf: key, certificate and CA in one file, so that the two halves cannot come apart
//
// A kill at any moment therefore leaves a set that the next start either completes or takes as it is. With an etcd
// that several servers share, the first one publishes the set there and the others adopt it.
//
// The package does not sign CertificateSigningRequests (upstream's signer does, with CACertFile and CAKeyFile) and
// never replaces a CA: losing it means that every machine must join again, so that is left to the operator.
package pki
