//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/everynode/everynode/internal/apiserver/pki"
	"github.com/everynode/everynode/test/e2e/cluster"
)

// Two servers share an etcd cluster, over TLS. When the one that leads is killed the other one takes
// over, agents find it, and nothing is lost, doubled or started again; and so the other way round.
func TestTwoServers(t *testing.T) {
	etcd := etcdKeys(t)
	c := cluster.NewSwitch(t, programs(t), etcd.client...)
	c.Switch.Start("etcd", append([]string{buildEtcd(t), "--data-dir", "/var/lib/etcd"}, etcd.server...)...)
	c.StartServer()
	c.AwaitServer()
	second := c.AddMachine()
	c.Nodes = nil // that one is no node
	url := "https://" + second.Address + ":6443"
	startSecond := func() *cluster.Process {
		return second.Start("server", append([]string{c.Programs().Everynode, "server", "--listen", second.Address + ":6443"}, etcd.client...)...)
	}
	other := startSecond()
	kubectl := func(args ...string) cluster.Result {
		t.Helper()
		return c.Kubectl(append([]string{"--server", url}, args...)...)
	}
	awaitOther := func() {
		t.Helper()
		cluster.Await(t, "the second server is ready", 60*time.Second, func(context.Context) error {
			if r := kubectl("get", "--raw", "/readyz"); r.Code != 0 {
				return fmt.Errorf("%s", r.Stderr)
			}
			return nil
		})
	}
	awaitOther()
	leads := func(server string, ask func(...string) cluster.Result) {
		t.Helper()
		cluster.Await(t, server+" leads", 90*time.Second, func(context.Context) error {
			r := ask("-n", "kube-system", "get", "lease", "everynode-controllers", "-o", "jsonpath={.spec.holderIdentity}")
			if !strings.HasPrefix(r.Stdout, server) {
				return fmt.Errorf("%s%s leads", r.Stdout, r.Stderr)
			}
			return nil
		})
	}
	leads(c.Switch.Name, c.Kubectl)
	c.AddNode()
	c.AddNode()
	c.AwaitReady()
	c.Apply(daemonSet("steady", "sleep"))
	steady := awaitOnEach(t, c, "steady", 60*time.Second)

	c.Apply(daemonSet("first", "sleep")) // it is being made while its server dies
	c.Server.Kill()
	leads(second.Name, kubectl)
	if r := c.KubectlWith(daemonSet("second", "sleep"), "--server", url, "apply", "-f", "-"); r.Code != 0 {
		t.Fatalf("apply at the second server: %s", r.Stderr)
	}
	for _, app := range []string{"first", "second"} {
		// Not `rollout status`: it wants no pod of a node that is silent.
		cluster.Await(t, app+" runs after the change of leader", 90*time.Second, func(context.Context) error {
			if r := kubectl("get", "ds", app, "-o", "jsonpath={.status.numberReady}/{.status.desiredNumberScheduled}"); r.Stdout != "2/2" {
				return fmt.Errorf("%s%s", r.Stdout, r.Stderr)
			}
			return nil
		})
	}
	c.StartServer()
	c.AwaitServer()
	unharmed(t, c, "steady", steady)

	other.Kill()
	leads(c.Switch.Name, c.Kubectl)
	c.Apply(daemonSet("third", "sleep"))
	for _, app := range []string{"first", "second", "third"} {
		awaitOnEach(t, c, app, 90*time.Second)
	}
	startSecond()
	awaitOther()
	unharmed(t, c, "steady", steady)
	for _, n := range c.Nodes {
		sandboxes(t, c, n)
	}
}

// buildEtcd builds an etcd of the version that servers embed.
func buildEtcd(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "etcd")
	if out, err := exec.Command("go", "build", "-o", path, "./etcd").CombinedOutput(); err != nil {
		t.Fatalf("building etcd: %v\n%s", err, out)
	}
	return path
}

type etcdFlags struct{ server, client []string }

// etcdKeys makes the keys of an etcd on the switch that knows its clients, and the flags that name them.
func etcdKeys(t *testing.T) etcdFlags {
	t.Helper()
	dir := t.TempDir()
	bundle, err := pki.Ensure(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := bundle.Serving([]string{"localhost"}, []net.IP{net.ParseIP("10.206.0.1"), net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	clientCert, clientKey, err := bundle.Client("etcd-client", "everynode")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	const url = "https://10.206.0.1:2379"
	return etcdFlags{
		server: []string{"--url", url, "--cert-file", cert, "--key-file", key, "--trusted-ca-file", bundle.CACertFile()},
		client: []string{"--etcd-endpoints", url, "--etcd-cafile", bundle.CACertFile(), "--etcd-certfile", clientCert, "--etcd-keyfile", clientKey},
	}
}
