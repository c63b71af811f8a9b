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
	"k8s.io/client-go/util/connrotation"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/sleep"
)

const (
	userAgent = "everynode-agent"
	// serverName is in the certificate of every API server, whatever its address.
	serverName = "kubernetes"
	// certificateCached is for how long client-go does not look at a certificate's file again, and a bit.
	certificateCached = 1200 * time.Millisecond
)

// Identity is the node's certificates. It is safe for concurrent use.
type Identity struct {
	o       Options
	ca      []byte
	client  certificate.Manager
	serving certificate.Manager

	servingOnce sync.Once
	servingIPs  atomic.Pointer[[]net.IP]

	// refused gets a value when the server does not know the node by its certificate.
	refused chan struct{}
	// connections are all to the server.
	connections *connrotation.Dialer
}

// load reads what Obtain left on disk.
func load(o *Options) (*Identity, error) {
	ca, err := os.ReadFile(o.path(caFile))
	if err != nil {
		return nil, fmt.Errorf("read the node's identity: %w", err)
	}
	i := &Identity{o: *o, ca: ca, refused: make(chan struct{}, 1), connections: connrotation.NewDialer(o.dial())}
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

// Run renews the certificates before they run out, until ctx ends. Where no server was there to renew with in time,
// it joins again when one is; its error is what waiting does not cure then.
func (i *Identity) Run(ctx context.Context) error {
	i.client.Start()
	defer i.client.Stop()
	defer i.serving.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-i.refused:
		}
		pair, err := pairFile(i.o.path(clientFile)).Current()
		if err != nil || time.Now().Before(pair.Leaf.NotAfter) {
			continue
		}
		klog.FromContext(ctx).Error(nil, "this node's certificate has expired before a server was there to renew it; joining again", "expired", pair.Leaf.NotAfter.UTC())
		if err := join(ctx, i.o); err != nil && ctx.Err() == nil {
			return err
		}
		// The server knows the connections by the old certificate, also those of the next moment.
		sleep.For(ctx, certificateCached)
		i.connections.CloseAll()
	}
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
	c.Dial = i.connections.DialContext
	if i.o.Dial != nil {
		c.ServerName = serverName
	}
	c.Wrap(func(rt http.RoundTripper) http.RoundTripper { return apiServerOnly{rt, i.refused} })
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

// apiServerOnly drops answers from a node that passes itself off as the API server; see checkServer. It tells when
// the API server does not know the node.
type apiServerOnly struct {
	http.RoundTripper
	refused chan<- struct{}
}

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
	if response.StatusCode == http.StatusUnauthorized {
		select {
		case a.refused <- struct{}{}:
		default:
		}
	}
	return response, nil
}

// WrappedRoundTripper lets client-go find the transport below.
func (a apiServerOnly) WrappedRoundTripper() http.RoundTripper { return a.RoundTripper }
