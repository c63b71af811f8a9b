package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/everynode/everynode/internal/jointoken"
)

const (
	// contactTimeout bounds one try to reach the server.
	contactTimeout = 10 * time.Second
	// tolerated is how far the clocks may be apart: the server backdates certificates by 5 minutes.
	tolerated = 4 * time.Minute

	nodesGroup = "system:nodes"
)

// hopeless is an error that trying again does not cure.
type hopeless struct{ error }

func (h hopeless) Unwrap() error { return h.error }

// passing is an error that is likely to be over in a moment, so that nobody need hear of it.
type passing struct{ error }

func (p passing) Unwrap() error { return p.error }

func hopelessf(format string, args ...any) error { return hopeless{fmt.Errorf(format, args...)} }

// contact reaches the server once, makes sure that it is the one whose CA has caHash, and returns that CA as PEM.
// Nothing that the machine knows is sent.
func contact(ctx context.Context, server, caHash string) ([]byte, error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, hopelessf("server %q: %w", server, err)
	}
	h := handshake{host: u.Hostname(), caHash: caHash}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS12,
			ServerName: h.host,
			// The chain is verified by the pinned CA instead of the machine's roots.
			InsecureSkipVerify: true,
			VerifyConnection:   h.verify,
		},
		Proxy:             http.ProxyFromEnvironment,
		DisableKeepAlives: true,
	}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, contactTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(server, "/")+"/readyz", http.NoBody)
	if err != nil {
		return nil, hopelessf("server %q: %w", server, err)
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return nil, explainContact(server, err)
	}
	defer response.Body.Close()
	if err := h.checkClock(response.Header.Get("Date"), time.Now()); err != nil {
		return nil, err
	}
	if response.StatusCode >= http.StatusInternalServerError {
		return nil, fmt.Errorf("the server at %s is not ready yet (%s)", server, response.Status)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.ca.Raw}), nil
}

// handshake is what is learnt about the server while connecting.
type handshake struct {
	host, caHash string
	ca, leaf     *x509.Certificate
}

// verify accepts a chain that the pinned CA vouches for. Whether it is valid now is judged later, when the server's
// clock is known too.
func (h *handshake) verify(cs tls.ConnectionState) error {
	i := slices.IndexFunc(cs.PeerCertificates, func(c *x509.Certificate) bool { return jointoken.HashDER(c.Raw) == h.caHash })
	if i < 0 || !cs.PeerCertificates[i].IsCA {
		return hopelessf("the server at %s is not the one that the join token was made by (its CA is another): compare --server with the machine that the token comes from, "+
			"and make a new token there with `everynode token create` if its data were reset", h.host)
	}
	h.ca, h.leaf = cs.PeerCertificates[i], cs.PeerCertificates[0]
	roots := x509.NewCertPool()
	roots.AddCert(h.ca)
	_, err := h.leaf.Verify(x509.VerifyOptions{
		Roots: roots, DNSName: h.host, CurrentTime: h.leaf.NotBefore, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if name := (x509.HostnameError{}); errors.As(err, &name) {
		return hopelessf("the server's certificate is not for %q: use one of its names in --server (%s)", h.host, names(h.leaf))
	}
	if err != nil {
		return hopelessf("the server at %s has a certificate that its CA does not vouch for: %w", h.host, err)
	}
	return checkServer(h.leaf)
}

// checkServer refuses a node that passes itself off as the API server: nodes have serving certificates of the same
// CA.
func checkServer(leaf *x509.Certificate) error {
	if slices.Contains(leaf.Subject.Organization, nodesGroup) {
		return hopelessf("what answers is not the API server but a node (%s)", leaf.Subject.CommonName)
	}
	return nil
}

func names(c *x509.Certificate) string {
	all := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	return strings.Join(all, ", ")
}

// checkClock compares the machine's clock with the server's, and both with the server's certificate. date is the
// server's Date header.
func (h *handshake) checkClock(date string, now time.Time) error {
	theirs, err := http.ParseTime(date)
	if err != nil {
		theirs = now // no Date: nothing to compare with
	}
	valid := !now.Before(h.leaf.NotBefore) && !now.After(h.leaf.NotAfter)
	behind := theirs.Sub(now).Round(time.Minute)
	switch {
	case behind > tolerated:
		return fmt.Errorf("this machine's clock is %s behind the server's, so certificates are not valid yet: set the clock, with NTP for example", duration.HumanDuration(behind))
	case valid:
		return nil
	case behind < -tolerated:
		return fmt.Errorf("this machine's clock is %s ahead of the server's, so certificates seem to have expired: set the clock, with NTP for example", duration.HumanDuration(-behind))
	default:
		return fmt.Errorf("the server's certificate is valid from %s to %s only: restart the server, which renews it",
			h.leaf.NotBefore.UTC().Format(time.RFC3339), h.leaf.NotAfter.UTC().Format(time.RFC3339))
	}
}

func explainContact(server string, err error) error {
	if h := (hopeless{}); errors.As(err, &h) {
		return h
	}
	if record := (tls.RecordHeaderError{}); errors.As(err, &record) || errors.Is(err, http.ErrSchemeMismatch) {
		return hopelessf("what listens at %s does not speak TLS: --server wants the API server's address", server)
	}
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err // its own text repeats the URL
	}
	return fmt.Errorf("the server at %s cannot be reached: %w", server, err)
}
