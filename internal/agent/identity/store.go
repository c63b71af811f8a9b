package identity

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"k8s.io/client-go/util/certificate"

	"github.com/everynode/everynode/internal/atomicfile"
)

// The files of an identity.
const (
	caFile      = "ca.crt"      // the server's CA, pinned when joining
	joinKeyFile = "join.key"    // the key of a join that is under way
	clientFile  = "client.pem"  // the node's key and client certificate
	servingFile = "serving.pem" // the agent API's key and certificate
)

// pairFile keeps a key and its certificate in one file, replaced as a whole.
type pairFile string

var _ certificate.Store = pairFile("")

// Current reads the pair; a file that is not there is a certificate.NoCertKeyError.
func (p pairFile) Current() (*tls.Certificate, error) {
	data, err := os.ReadFile(string(p))
	if errors.Is(err, fs.ErrNotExist) {
		none := certificate.NoCertKeyError("no certificate in " + string(p))
		return nil, &none
	}
	if err != nil {
		return nil, err
	}
	pair, err := parsePair(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	return pair, nil
}

// Update replaces the pair.
func (p pairFile) Update(certPEM, keyPEM []byte) (*tls.Certificate, error) {
	data := bytes.Join([][]byte{bytes.TrimSpace(keyPEM), bytes.TrimSpace(certPEM), nil}, []byte("\n"))
	pair, err := parsePair(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	return pair, atomicfile.Write(string(p), data)
}

func parsePair(data []byte) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(data, data)
	if err != nil {
		return nil, err
	}
	if pair.Leaf == nil {
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return nil, err
		}
	}
	return &pair, nil
}

func (o *Options) path(name string) string { return filepath.Join(o.Dir, name) }

// readIfThere returns nil for a file that does not exist.
func readIfThere(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// forget removes what belongs to another server. The CA goes last: without the rest it is harmless.
func (o *Options) forget() error {
	for _, name := range []string{clientFile, servingFile, joinKeyFile, caFile} {
		if err := os.Remove(o.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
