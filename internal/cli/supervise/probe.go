package supervise

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// clusterProbe asks the API server how the server and the node are. It reads JSON itself: a typed
// client would cost the supervisor, which otherwise only sleeps, megabytes.
type clusterProbe struct {
	kubeconfig string
	node       string

	mu      sync.Mutex
	written time.Time // of the kubeconfig that client was made from
	client  *http.Client
	host    string
}

func (p *clusterProbe) serverReady(ctx context.Context, _ time.Time) error {
	_, err := p.get(ctx, "/readyz")
	return err
}

// nodeReady means: the agent that was started then renews its lease, and the node is Ready.
func (p *clusterProbe) nodeReady(ctx context.Context, started time.Time) error {
	var lease struct {
		Spec struct {
			RenewTime time.Time `json:"renewTime"`
		} `json:"spec"`
	}
	if err := p.getJSON(ctx, "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/"+p.node, &lease); err != nil {
		return err
	}
	if lease.Spec.RenewTime.Before(started) {
		return fmt.Errorf("node %s: the agent has not reported yet", p.node)
	}
	var node struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string } `json:"conditions"`
		} `json:"status"`
	}
	if err := p.getJSON(ctx, "/api/v1/nodes/"+p.node, &node); err != nil {
		return err
	}
	for _, c := range node.Status.Conditions {
		if c.Type == "Ready" {
			if c.Status == "True" {
				return nil
			}
			return fmt.Errorf("node %s is not ready: %s", p.node, c.Message)
		}
	}
	return fmt.Errorf("node %s: no Ready condition yet", p.node)
}

func (p *clusterProbe) getJSON(ctx context.Context, path string, into any) error {
	body, err := p.get(ctx, path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	return nil
}

func (p *clusterProbe) get(ctx context.Context, path string) ([]byte, error) {
	client, host, err := p.connection()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, host+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, 4<<20))
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s: %s", path, response.Status, strings.TrimSpace(string(body)))
	}
	return body, nil
}

// connection makes a client from the kubeconfig, and a new one when the server has written it anew.
func (p *clusterProbe) connection() (*http.Client, string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	info, err := os.Stat(p.kubeconfig)
	if err != nil {
		return nil, "", err
	}
	if p.client != nil && info.ModTime().Equal(p.written) {
		return p.client, p.host, nil
	}
	config, err := clientcmd.BuildConfigFromFlags("", p.kubeconfig)
	if err != nil {
		return nil, "", err
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, "", err
	}
	p.client, p.host, p.written = client, strings.TrimSuffix(config.Host, "/"), info.ModTime()
	return p.client, p.host, nil
}
