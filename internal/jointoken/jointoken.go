// Package jointoken is the form in which a join token travels from a server to the machine that is to join: one
// line that names the server's CA, so that the machine can tell its server from an impostor, and carries a
// Kubernetes bootstrap token.
//
//	EN1.<hex sha256 of the CA certificate's DER>.<token id>.<token secret>
//
// The server writes it (internal/apiserver/tokens), the agent reads it (internal/agent/identity). The package
// neither makes tokens nor judges whether one is still valid.
package jointoken

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

const (
	version = "EN1"
	digits  = "0123456789"
	letters = "abcdefghijklmnopqrstuvwxyz"
)

// Token is a join token. It prints as its one line, secret included: do not log it, log its ID.
type Token struct {
	// CAHash is the hex sha256 of the CA certificate's DER encoding.
	CAHash string
	// ID and Secret are the two halves of a Kubernetes bootstrap token.
	ID, Secret string
}

// String is the line to hand to the machine that joins.
func (t Token) String() string {
	return strings.Join([]string{version, t.CAHash, t.ID, t.Secret}, ".")
}

// Bearer is the token that the Kubernetes API accepts.
func (t Token) Bearer() string { return t.ID + "." + t.Secret }

// ErrMalformed is what every error of Parse is.
var ErrMalformed = errors.New("not a join token")

// Parse reads a join token; white space around it is ignored. Its errors never quote the secret.
func Parse(s string) (Token, error) {
	parts := strings.Split(strings.TrimSpace(s), ".")
	switch {
	case len(parts) == 0 || parts[0] == "":
		return Token{}, fmt.Errorf("%w: it is empty", ErrMalformed)
	case parts[0] != version:
		return Token{}, fmt.Errorf("%w: it does not start with %s; copy the whole line that `everynode token create` prints", ErrMalformed, version)
	case len(parts) != 4:
		return Token{}, fmt.Errorf("%w: it has %d parts, not 4; copy the whole line that `everynode token create` prints", ErrMalformed, len(parts))
	case !consists(parts[1], 64, digits+"abcdef"):
		return Token{}, fmt.Errorf("%w: its second part is not a sha256 sum in hexadecimal", ErrMalformed)
	case !ValidID(parts[2]):
		return Token{}, fmt.Errorf("%w: its third part is not a token id (6 of a-z and 0-9)", ErrMalformed)
	case !consists(parts[3], 16, digits+letters):
		return Token{}, fmt.Errorf("%w: its last part is not a token secret (16 of a-z and 0-9)", ErrMalformed)
	}
	return Token{CAHash: parts[1], ID: parts[2], Secret: parts[3]}, nil
}

// ValidID says whether s has the form of a token id.
func ValidID(s string) bool { return consists(s, 6, digits+letters) }

func consists(s string, length int, alphabet string) bool {
	return len(s) == length && strings.Trim(s, alphabet) == ""
}

// HashCA is the hash by which a token names a CA, of the first certificate in a PEM file.
func HashCA(caPEM []byte) (string, error) {
	for rest := caPEM; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return "", errors.New("no certificate in the CA's PEM data")
		}
		if block.Type == "CERTIFICATE" {
			return HashDER(block.Bytes), nil
		}
	}
}

// HashDER is the hash of a certificate in DER form.
func HashDER(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}
