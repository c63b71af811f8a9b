//go:build e2e

package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/everynode/everynode/test/e2e/cluster"
)

// What a node tells of itself is for those who may know: nobody without a name, and whoever has one
// by the rights on the node's subresources.
func TestNodeMetricsAccess(t *testing.T) {
	c := cluster.New(t, programs(t))
	n := c.AddNode()
	c.AwaitReady()
	address := strings.TrimSpace(c.MustKubectl("get", "node", n.Name, "-o", `jsonpath={.status.addresses[?(@.type=="InternalIP")].address}`))
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DialContext: c.Switch.Dial, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // who asks is tested here, not who answers
	}}
	defer client.CloseIdleConnections()
	get := func(path, token string) (int, string) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address+":10250"+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			request.Header.Set("Authorization", "Bearer "+token)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(body)
	}
	c.MustKubectl("create", "serviceaccount", "scraper")
	token := strings.TrimSpace(c.MustKubectl("create", "token", "scraper"))
	for _, path := range []string{"/metrics", "/metrics/resource", "/metrics/cadvisor", "/stats/summary", "/pods", "/configz", "/logs/"} {
		if code, body := get(path, ""); code != http.StatusUnauthorized {
			t.Errorf("%s for nobody: %d %.100s", path, code, body)
		}
		if code, body := get(path, token); code != http.StatusForbidden {
			t.Errorf("%s without rights: %d %.100s", path, code, body)
		}
	}
	c.MustKubectl("create", "clusterrole", "scraper", "--verb=get", "--resource=nodes/metrics")
	c.MustKubectl("create", "clusterrolebinding", "scraper", "--clusterrole=scraper", "--serviceaccount=default:scraper")
	cluster.Await(t, "the scraper may have metrics, once the refusal is forgotten", time.Minute, func(context.Context) error {
		if code, body := get("/metrics/resource", token); code != http.StatusOK || !strings.Contains(body, "node_cpu_usage_seconds_total") {
			return fmt.Errorf("%d %.100s", code, body)
		}
		return nil
	})
	if code, body := get("/stats/summary", token); code != http.StatusForbidden {
		t.Errorf("statistics with rights for metrics: %d %.100s", code, body)
	}
}
