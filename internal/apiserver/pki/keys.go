package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"

	"k8s.io/client-go/util/keyutil"
)

const (
	caLife   = 10 * 365 * 24 * time.Hour
	leafLife = 365 * 24 * time.Hour
	// backdate forgives a machine whose clock is a little behind the server's.
	backdate = 5 * time.Minute

	certBlock = "CERTIFICATE"
)

// keys are the three secrets a cluster lives by.
type keys struct {
	cert                   *x509.Certificate
	key                    crypto.Signer
	certPEM, keyPEM, saPEM []byte
}

// generate makes new keys, and a CA that may sign leaves but no other CA.
func generate(now time.Time) (*keys, error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return nil, err
	}
	_, saPEM, err := newKey()
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial,
		// The serial in the name keeps two clusters' CAs apart in a browser's or a machine's store.
		Subject:   pkix.Name{CommonName: fmt.Sprintf("everynode-ca-%x", serial.Bytes()[:4])},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(caLife),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}, &x509.Certificate{}, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make the CA: %w", err)
	}
	k, _, err := parse(pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: der}), keyPEM, saPEM)
	return k, err
}

// parse checks the three against each other; on an error it names the file at fault.
func parse(certPEM, keyPEM, saPEM []byte) (k *keys, file string, err error) {
	cert, err := parseCert(certPEM)
	if err != nil {
		return nil, caCert, err
	}
	if !cert.IsCA {
		return nil, caCert, errors.New("it is not a CA's certificate")
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, caKey, err
	}
	if !matches(cert, key) {
		return nil, caKey, fmt.Errorf("it is not the key of %s", caCert)
	}
	if _, err := parseKey(saPEM); err != nil {
		return nil, saKey, err
	}
	return &keys{cert: cert, key: key, certPEM: certPEM, keyPEM: keyPEM, saPEM: saPEM}, "", nil
}

// marshal is the form in which servers share keys: the three PEM files, one after the other.
func (k *keys) marshal() []byte {
	var out []byte
	for _, data := range [][]byte{k.certPEM, k.keyPEM, k.saPEM} {
		block, _ := pem.Decode(data)
		out = append(out, pem.EncodeToMemory(block)...)
	}
	return out
}

func unmarshal(data []byte) (*keys, error) {
	var parts [][]byte
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		parts = append(parts, pem.EncodeToMemory(block))
	}
	if len(parts) != 3 {
		return nil, fmt.Errorf("it has %d PEM blocks, not 3", len(parts))
	}
	k, file, err := parse(parts[0], parts[1], parts[2])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return k, nil
}

func parseCert(data []byte) (*x509.Certificate, error) {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == certBlock {
			return x509.ParseCertificate(block.Bytes)
		}
	}
	return nil, errors.New("there is no PEM certificate in it")
}

func parseKey(data []byte) (crypto.Signer, error) {
	key, err := keyutil.ParsePrivateKeyPEM(data)
	if err != nil {
		return nil, errors.New("there is no PEM private key in it")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("its key of type %T cannot sign", key)
	}
	return signer, nil
}

func matches(cert *x509.Certificate, key crypto.Signer) bool {
	a, errA := x509.MarshalPKIXPublicKey(cert.PublicKey)
	b, errB := x509.MarshalPKIXPublicKey(key.Public())
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

func newKey() (crypto.Signer, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	data, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode a key: %w", err)
	}
	return key, data, nil
}

func newSerial() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	return serial.SetBit(serial, 126, 1), nil // never zero, always 16 bytes
}
