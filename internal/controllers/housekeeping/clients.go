package housekeeping

import (
	"fmt"
	"net/http"

	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"
)

// clients makes unthrottled clients which differ in their user agent (the audit log and the
// server's metrics tell controllers apart by it) and share one transport, and with it one
// connection.
type clients struct {
	config *rest.Config
	base   http.RoundTripper
}

func newClients(c *rest.Config) (*clients, error) {
	cfg := rest.CopyConfig(c)
	cfg.QPS, cfg.Burst, cfg.RateLimiter = -1, 0, nil
	cfg.UserAgent = "" // added per controller, see named
	base, err := rest.TransportFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("transport to the API server: %w", err)
	}
	return &clients{config: cfg, base: base}, nil
}

// named returns what a client constructor takes: a configuration, and an HTTP client which calls itself name.
func (c *clients) named(name string) (*rest.Config, *http.Client) {
	cfg := rest.CopyConfig(c.config)
	cfg.UserAgent = rest.DefaultKubernetesUserAgent() + "/" + name
	return cfg, &http.Client{Transport: transport.NewUserAgentRoundTripper(cfg.UserAgent, c.base), Timeout: cfg.Timeout}
}

func (c *clients) kubernetes(name string) (kubernetes.Interface, error) {
	cfg, h := c.named(name)
	client, err := kubernetes.NewForConfigAndClient(cfg, h)
	if err != nil {
		return nil, fmt.Errorf("client of %s: %w", name, err)
	}
	return client, nil
}

func (c *clients) metadata(name string) (metadata.Interface, error) {
	cfg, h := c.named(name)
	client, err := metadata.NewForConfigAndClient(metadata.ConfigFor(cfg), h)
	if err != nil {
		return nil, fmt.Errorf("metadata client of %s: %w", name, err)
	}
	return client, nil
}

func (c *clients) discovery(name string) (discovery.DiscoveryInterface, error) {
	cfg, h := c.named(name)
	client, err := discovery.NewDiscoveryClientForConfigAndClient(cfg, h)
	if err != nil {
		return nil, fmt.Errorf("discovery client of %s: %w", name, err)
	}
	return client, nil
}
