//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/everynode/everynode/test/e2e/cluster"
)

// A server and an agent as services of a real systemd: installed with what the server prints for
// it, installed again, restarted under a running container, and removed without a trace.
func TestInstall(t *testing.T) {
	p := programs(t)
	c := cluster.New(t, p) // for its network; its server is not asked
	n := c.AddMachine()
	n.StartContainerd()
	systemd := n.BootSystemd()
	run := func(argv ...string) cluster.Result {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		defer cancel()
		r, err := systemd.Run(ctx, argv...)
		if err != nil {
			t.Fatalf("%v: %v", argv, err)
		}
		return r
	}
	must := func(argv ...string) string {
		t.Helper()
		r := run(argv...)
		if r.Code != 0 {
			t.Fatalf("%v: code %d\n%s%s%s", argv, r.Code, r.Stdout, r.Stderr, run("systemctl", "--no-pager", "status", "everynode-*").Stdout)
		}
		return r.Stdout
	}

	said := must(p.Everynode, "install", "server", "--listen", n.Address+":6443")
	lines := regexp.MustCompile(`(?m)^ +((?:echo|everynode install agent) .*)$`).FindAllStringSubmatch(said, -1)
	if len(lines) != 2 {
		t.Fatalf("install prints no two lines for another machine:\n%s", said)
	}
	installAgent := "cd /var/lib/everynode && " + lines[1][1] +
		" --node-name one --runtime-endpoint unix:///run/everynode/containerd.sock --cni-conf-dir /var/lib/everynode/cni/net.d"
	must("sh", "-c", "cd /var/lib/everynode && "+lines[0][1]+" && "+installAgent)
	if again := must("sh", "-c", installAgent); !strings.Contains(again, "nothing changed") {
		t.Errorf("a second install of the same does not say that nothing changed:\n%s", again)
	}

	must("sh", "-c", "cat >/run/ds.yaml <<'X'\n"+daemonSet("sleeper", "sleep")+"X\n/usr/local/bin/everynode kubectl apply -f /run/ds.yaml")
	container := func() string {
		var id string
		cluster.Await(t, "the node has its copy", time.Minute, func(context.Context) error {
			r := run("/usr/local/bin/everynode", "kubectl", "get", "pods", "-l", "app=sleeper", "-o", "jsonpath={range .items[*]}{.status.containerStatuses[0].ready} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}{end}")
			fields := strings.Fields(r.Stdout)
			if len(fields) != 3 || fields[0] != "true" || fields[2] != "0" {
				return fmt.Errorf("%s%s", r.Stdout, r.Stderr)
			}
			id = fields[1]
			return nil
		})
		return id
	}
	before := container()
	if said := must("sh", "-c", installAgent+" --node-labels tier=edge"); strings.Contains(said, "nothing changed") {
		t.Errorf("an install with another flag says:\n%s", said)
	}
	cluster.Await(t, "the new label is on the node", time.Minute, func(context.Context) error {
		if r := run("/usr/local/bin/everynode", "kubectl", "get", "nodes", "-l", "tier=edge", "-o", "name"); strings.TrimSpace(r.Stdout) != "node/one" {
			return fmt.Errorf("%s%s", r.Stdout, r.Stderr)
		}
		return nil
	})
	if after := container(); after != before {
		t.Errorf("the restarted agent runs container %s in place of %s", after, before)
	}

	said = must("/usr/local/bin/everynode", "uninstall", "--purge")
	if units := must("sh", "-c", "find /etc/systemd -name 'everynode*'"); units != "" {
		t.Errorf("units are left:\n%safter:\n%s", units, said)
	}
	if r := run("ls", "/var/lib/everynode/admin.kubeconfig"); r.Code == 0 {
		t.Errorf("the data is left after a purge:\n%s", said)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if left, err := n.ReadySandboxes(ctx); err != nil || len(left) > 0 {
		t.Errorf("pods are left: %v %v\n%s", left, err, said)
	}
}
