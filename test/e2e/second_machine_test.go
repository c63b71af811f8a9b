//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/everynode/everynode/test/e2e/cluster"
)

// What `up --node-ip` prints for another machine is typed there as it stands (with the runtime of
// this test), and that machine joins and gets its copy.
func TestSecondMachine(t *testing.T) {
	p := programs(t)
	c := cluster.New(t, p) // for its network; its server is not asked
	first, second := c.AddMachine(), c.AddMachine()
	run := func(n *cluster.Node, argv ...string) cluster.Result {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		defer cancel()
		r, err := n.Run(ctx, argv...)
		if err != nil {
			t.Fatalf("%v: %v", argv, err)
		}
		return r
	}
	up := run(first, p.Everynode, "up", "--node-ip", first.Address)
	if up.Code != 0 {
		t.Fatalf("up: code %d\n%s%s", up.Code, up.Stdout, up.Stderr)
	}
	t.Cleanup(func() { run(first, p.Everynode, "down") })
	lines := regexp.MustCompile(`(?m)^ +((?:echo|everynode agent) .*)$`).FindAllStringSubmatch(up.Stdout, -1)
	if len(lines) != 2 {
		t.Fatalf("up prints no two lines to type on another machine:\n%s", up.Stdout)
	}

	second.StartContainerd()
	second.Start("joiner", "sh", "-c", fmt.Sprintf("cd /var/lib/everynode && PATH=%s:$PATH && %s && exec %s --runtime-endpoint unix:///run/everynode/containerd.sock --cni-conf-dir /var/lib/everynode/cni/net.d",
		filepath.Dir(p.Everynode), lines[0][1], lines[1][1]))
	kubectl := func(args ...string) cluster.Result {
		return run(first, append([]string{p.Everynode, "kubectl"}, args...)...)
	}
	cluster.Await(t, "both machines are ready nodes", time.Minute, func(context.Context) error {
		r := kubectl("get", "nodes", "--no-headers")
		if strings.Count(r.Stdout, " Ready ") != 2 {
			return fmt.Errorf("nodes:\n%s%s", r.Stdout, r.Stderr)
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if r, err := first.RunWith(ctx, daemonSet("sleeper", "sleep"), p.Everynode, "kubectl", "apply", "-f", "-"); err != nil || r.Code != 0 {
		t.Fatalf("apply: %v %s", err, r.Stderr)
	}
	cluster.Await(t, "one copy runs on each", time.Minute, func(context.Context) error {
		r := kubectl("get", "ds", "sleeper", "-o", "jsonpath={.status.numberReady}")
		if r.Stdout != "2" {
			return fmt.Errorf("ready: %s\n%s", r.Stdout, kubectl("get", "pods", "-o", "wide").Stdout)
		}
		return nil
	})
	if r := kubectl("exec", "ds/sleeper", "--", "/bin/testapp", "hostname"); r.Code != 0 {
		t.Errorf("exec: %s", r.Stderr)
	}
}
