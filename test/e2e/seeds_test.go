//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/everynode/everynode/test/e2e/cluster"
)

// The manifests of guides to DaemonSets run as they are written, with testapp in the place of their
// programs: from a mirror of the registry that they mean, where they tolerate the taints, with the
// host's files and network, with probes, and with the rights of their account and no others.
func TestSeeds(t *testing.T) {
	c := cluster.New(t, programs(t))
	r := serveRegistry(t, c, "library/redis", "calico/node")
	r.push(t, "library/redis:5-alpine", "serve", "6379")
	r.push(t, "calico/node:v3.25.0", "serve", "9099")
	r.push(t, "stakater/fluentd-elasticsearch:latest", "sleep")
	control, worker := c.AddNode(), c.AddNode()
	for _, n := range c.Nodes {
		// With itself as the last resort: else the real one is looked for, for 10 s.
		r.tell(t, n, "docker.io", fmt.Sprintf("server = %[1]q\n[host.%[1]q]\n", "http://"+plainRegistry))
	}
	c.AwaitReady()
	if _, err := os.Stat("/lib/modules"); err != nil { // else the manifest makes it
		t.Cleanup(func() { _ = os.Remove("/lib/modules") })
	}
	c.MustKubectl("taint", "node", control.Name, "node-role.kubernetes.io/master:NoSchedule")
	for _, file := range []string{"calico-node", "fluentd-cloud-logging", "fluentd-elasticsearch", "redis"} {
		path, err := filepath.Abs("testdata/seeds/" + file + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		c.MustKubectl("apply", "-f", path)
	}
	awaitEvent(t, c, "FailedToRetrieveImagePullSecret", "mydockerhubsecret") // the private image of fluentd
	c.MustKubectl("-n", "kube-system", "create", "secret", "docker-registry", "mydockerhubsecret", "--docker-username="+registryUser, "--docker-password="+registryPassword)
	on := func(namespace, ds, want string) {
		t.Helper()
		if r := c.Kubectl("-n", namespace, "rollout", "status", "ds/"+ds, "--timeout=40s"); r.Code != 0 {
			t.Fatalf("%s%s\n%s", r.Stdout, r.Stderr, c.Kubectl("-n", namespace, "describe", "pods").Stdout)
		}
		if out := c.MustKubectl("-n", namespace, "get", "ds", ds, "-o", "jsonpath={.status.numberReady}/{.status.desiredNumberScheduled}"); out != want {
			t.Errorf("%s is on %s nodes, want %s", ds, out, want)
		}
	}
	exec := func(ds string, args ...string) cluster.Result {
		return c.Kubectl(append([]string{"-n", "kube-system", "exec", "ds/" + ds, "--", "/bin/testapp"}, args...)...)
	}

	on("default", "redis-ds", "1/1")
	if node := c.MustKubectl("get", "pods", "-l", "name=redis-ds", "-o", "jsonpath={.items[*].spec.nodeName}"); node != worker.Name {
		t.Errorf("redis-ds is on %s, whose taint it does not tolerate", node)
	}
	c.MustKubectl("patch", "ds", "redis-ds", "-p", `{"spec":{"template":{"spec":{"tolerations":[{"key":"node-role.kubernetes.io/master","effect":"NoSchedule","operator":"Exists"}]}}}}`)
	on("default", "redis-ds", "2/2")
	on("default", "fluentd-elasticsearch", "2/2")

	// The network plugin: privileged, in the host's network, with files that appear when missing.
	on("kube-system", "calico-node", "2/2")
	for _, n := range c.Nodes {
		n.Must("sh", "-c", "test -f /run/xtables.lock && test -d /run/calico && test -d /var/lib/calico")
		want := n.Address + " " + n.Address + " 2000001000 Burstable"
		if out := c.MustKubectl("-n", "kube-system", "get", "pods", "-l", "k8s-app=calico-node", "--field-selector", "spec.nodeName="+n.Name,
			"-o", "jsonpath={.items[0].status.podIP} {.items[0].status.hostIP} {.items[0].spec.priority} {.items[0].status.qosClass}"); out != want {
			t.Errorf("calico-node on %s: address, host, priority and class are %s, want %s", n.Name, out, want)
		}
	}
	if out := c.Kubectl("-n", "kube-system", "logs", "ds/calico-node").Stdout; !strings.Contains(out, "GET /readiness") {
		t.Errorf("calico-node was not asked whether it is ready: %s", out)
	}
	if out := exec("calico-node", "env").Stdout; !strings.Contains(out, "CALICO_IPV4POOL_IPIP=Always\n") {
		t.Errorf("environment of calico-node: %s", out)
	}

	// Its image is private, its token is good for what the account may.
	on("kube-system", "fluentd-cloud-logging", "1/1")
	api := func(path string, allowed bool) {
		t.Helper()
		cluster.Await(t, fmt.Sprintf("fluentd asks for %s, allowed: %t", path, allowed), 20*time.Second, func(context.Context) error {
			got := exec("fluentd-cloud-logging", "api", path)
			if allowed != (got.Code == 0) || !allowed && !strings.Contains(got.Stderr, "403") {
				return fmt.Errorf("code %d: %.300s%s", got.Code, got.Stdout, got.Stderr)
			}
			return nil
		})
	}
	api("/api/v1/pods", true)
	api("/api/v1/namespaces/kube-system/secrets", false)
	api("/api/v1/nodes", false)
	c.MustKubectl("delete", "clusterrolebinding", "fluentd-account")
	api("/api/v1/pods", false)
}
