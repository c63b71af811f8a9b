package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/certificate"
)

const (
	userAgent = "everynode-agent"
	// serverName is in the certificate of every API server, whatever its address.
	serverName = "kubernetes"
)

// Identity is the node's certificates. It is safe for concurrent use.
type Identity struct {
	o       Options
	ca      []byte
	client  certificate.Manager
	serving certificate.Manager

	servingOnce sync.Once
	servingIPs  atomic.Pointer[[]net.IP]
}

// load reads what Obtain left on disk.
func load(o *Options) (*Identity, error) {
	ca, err := os.ReadFile(o.path(caFile))
	if err != nil {
		return nil, fmt.Errorf("read the node's identity: %w", err)
	}
	i := &Identity{o: *o, ca: ca}
	clientset := func(*tls.Certificate) (kubernetes.Interface, error) { return kubernetes.NewForConfig(i.Config()) }
	i.client, err = certificate.NewManager(&certificate.Config{
		Name: "node-client", ClientsetFn: clientset, SignerName: certificatesv1.KubeAPIServerClientKubeletSignerName,
		Template:  &x509.CertificateRequest{Subject: subject(o.NodeName)},
		GetUsages: certificate.DefaultKubeletClientGetUsages, CertificateStore: pairFile(o.path(clientFile)),
	})
	if err != nil {
		return nil, fmt.Errorf("load the node's certificate: %w", err)
	}
	serving := pairFile(o.path(servingFile))
	if _, err := serving.Current(); err != nil && !errors.As(err, new(*certificate.NoCertKeyError)) {
		// A serving certificate is easily had anew; a broken one must not keep the agent down.
		if err := os.Remove(string(serving)); err != nil {
			return nil, fmt.Errorf("remove the unusable serving certificate: %w", err)
		}
	}
	i.serving, err = certificate.NewManager(&certificate.Config{
		Name: "node-serving", ClientsetFn: clientset, SignerName: certificatesv1.KubeletServingSignerName,
		GetTemplate: i.servingTemplate,
		GetUsages:   certificate.DefaultKubeletServingGetUsages, CertificateStore: serving,
	})
	if err != nil {
		return nil, fmt.Errorf("load the serving certificate: %w", err)
	}
	return i, nil
}

// Run renews the certificates before they run out, until ctx ends.
func (i *Identity) Run(ctx context.Context) error {
	i.client.Start()
	defer i.client.Stop()
	defer i.serving.Stop()
	<-ctx.Done()
	return nil
}

// Config is how to talk to the API server as this node: protobuf, unthrottled. Clients made from it take up a
// renewed certificate by themselves: client-go looks at the file with every handshake and every five minutes, and
// closes the connections that were made with the old one. The old one is good for weeks then.
func (i *Identity) Config() *rest.Config {
	file := i.o.path(clientFile)
	c := &rest.Config{
		Host:            i.o.Server,
		TLSClientConfig: rest.TLSClientConfig{CAData: slices.Clone(i.ca), CertFile: file, KeyFile: file},
		ContentConfig:   contentConfig,
		UserAgent:       userAgent, QPS: -1,
	}
	if i.o.Dial != nil {
		c.Dial, c.ServerName = i.o.Dial, serverName
	}
	c.Wrap(func(rt http.RoundTripper) http.RoundTripper { return apiServerOnly{rt} })
	return c
}

// CA is the server's CA as PEM.
func (i *Identity) CA() []byte { return slices.Clone(i.ca) }

// NodeName is the name that the certificates are for.
func (i *Identity) NodeName() string { return i.o.NodeName }

// Serving asks for the agent API's certificate for the node's name, ips and loopback, and waits until it is there or
// ctx ends. The server grants it only if the Node's status has those addresses. Called again with other addresses,
// it asks again; the old certificate serves meanwhile. Run has to run.
func (i *Identity) Serving(ctx context.Context, ips []net.IP) error {
	all := append([]net.IP{net.IPv4(127, 0, 0, 1)}, ips...)
	i.servingIPs.Store(&all)
	i.servingOnce.Do(i.serving.Start)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !covers(i.serving.Current(), all) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the server has not granted a serving certificate for %s with %v: %w", i.o.NodeName, ips, ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}

func covers(c *tls.Certificate, ips []net.IP) bool {
	return c != nil && c.Leaf != nil && !slices.ContainsFunc(ips, func(ip net.IP) bool {
		return !slices.ContainsFunc(c.Leaf.IPAddresses, ip.Equal)
	})
}

// servingTemplate is nil, which asks for nothing, until Serving has named the addresses.
func (i *Identity) servingTemplate() *x509.CertificateRequest {
	ips := i.servingIPs.Load()
	if ips == nil {
		return nil
	}
	return &x509.CertificateRequest{Subject: subject(i.o.NodeName), DNSNames: []string{i.o.NodeName}, IPAddresses: *ips}
}

// ServingCertificate is for tls.Config.GetCertificate: the newest serving certificate, the one on disk right after
// a restart, or an error, which fails the handshake, until there is one.
func (i *Identity) ServingCertificate() func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		if c := i.serving.Current(); c != nil {
			return c, nil
		}
		return nil, fmt.Errorf("node %s has no serving certificate yet", i.o.NodeName)
	}
}

// apiServerOnly drops answers from a node that passes itself off as the API server; see checkServer.
type apiServerOnly struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (a apiServerOnly) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := a.RoundTripper.RoundTrip(r)
	if err != nil || response.TLS == nil || len(response.TLS.PeerCertificates) == 0 {
		return response, err
	}
	if err := checkServer(response.TLS.PeerCertificates[0]); err != nil {
		response.Body.Close()
		return nil, err
	}
	return response, nil
}

// WrappedRoundTripper lets client-go find the transport below.
func (a apiServerOnly) WrappedRoundTripper() http.RoundTripper { return a.RoundTripper }
