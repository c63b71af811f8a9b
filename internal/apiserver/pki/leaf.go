package pki

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/everynode/everynode/internal/atomicfile"
)

// leaf is what a certificate is for.
type leaf struct {
	commonName string
	orgs       []string
	hosts      []string
	ips        []net.IP
	usage      x509.ExtKeyUsage
}

// Serving is the API server's certificate for hosts and ips, with the CA behind it in the chain. It is issued anew
// when they change and when less than a third of its life is left. Both paths are the same file: key, certificate
// and CA, as tls.LoadX509KeyPair takes it.
func (b *Bundle) Serving(hosts []string, ips []net.IP) (certFile, keyFile string, err error) {
	if len(hosts)+len(ips) == 0 {
		return "", "", fmt.Errorf("serving certificate: no name and no address to issue it for")
	}
	return b.issue("serving", leaf{commonName: "everynode-apiserver", hosts: hosts, ips: ips, usage: x509.ExtKeyUsageServerAuth})
}

// Client is a certificate for the user commonName in the groups orgs, kept under name (a file name without
// extension). Both paths are the same file.
func (b *Bundle) Client(name, commonName string, orgs ...string) (certFile, keyFile string, err error) {
	if errs := validation.IsDNS1123Label(name); len(errs) > 0 {
		return "", "", fmt.Errorf("client certificate name %q: %s", name, strings.Join(errs, "; "))
	}
	return b.issue("client-"+name, leaf{commonName: commonName, orgs: orgs, usage: x509.ExtKeyUsageClientAuth})
}

func (b *Bundle) issue(name string, want leaf) (certFile, keyFile string, err error) {
	path := b.path(name + ".pem")
	renew := func() error { return b.ensureLeaf(path, want) }
	if err := renew(); err != nil {
		return "", "", err
	}
	b.keep(path, renew)
	return path, path, nil
}

func (b *Bundle) ensureLeaf(path string, want leaf) error {
	data, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("read a certificate: %w", err)
	}
	if err == nil && b.serves(data, data, want) {
		return atomicfile.Restrict(path)
	}
	certPEM, keyPEM, err := b.sign(want)
	if err != nil {
		return fmt.Errorf("issue %s: %w", filepath.Base(path), err)
	}
	return atomicfile.Write(path, append(keyPEM, certPEM...))
}

// serves says whether the PEM data hold a certificate of this CA that is still good for want, and its key.
func (b *Bundle) serves(certPEM, keyPEM []byte, want leaf) bool {
	cert, err := parseCert(certPEM)
	if err != nil {
		return false
	}
	key, err := parseKey(keyPEM)
	if err != nil || !matches(cert, key) || !want.describes(cert) {
		return false
	}
	now := b.now()
	if _, err := cert.Verify(x509.VerifyOptions{Roots: b.roots(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{want.usage}}); err != nil {
		return false
	}
	return cert.NotAfter.Sub(now) >= cert.NotAfter.Sub(cert.NotBefore)/3
}

func (l leaf) describes(c *x509.Certificate) bool {
	return c.Subject.CommonName == l.commonName && slices.Equal(sorted(c.Subject.Organization), sorted(l.orgs)) &&
		slices.Equal(sorted(c.DNSNames), sorted(l.hosts)) && slices.Equal(sortedIPs(c.IPAddresses), sortedIPs(l.ips))
}

// sign issues a leaf that ends no later than its CA.
func (b *Bundle) sign(l leaf) (certPEM, keyPEM []byte, err error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, nil, err
	}
	notAfter := b.now().Add(leafLife)
	if notAfter.After(b.keys.cert.NotAfter) {
		notAfter = b.keys.cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: l.commonName, Organization: sorted(l.orgs)},
		DNSNames:     sorted(l.hosts), IPAddresses: l.ips,
		NotBefore: b.now().Add(-backdate), NotAfter: notAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{l.usage},
		BasicConstraintsValid: true,
	}, b.keys.cert, key.Public(), b.keys.key)
	if err != nil {
		return nil, nil, err
	}
	chain := bytes.Join([][]byte{pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: der}), b.keys.certPEM}, nil)
	return chain, keyPEM, nil
}

func sorted(s []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(s)))
}

func sortedIPs(ips []net.IP) []string {
	var s []string
	for _, ip := range ips {
		s = append(s, ip.String())
	}
	return sorted(s)
}
