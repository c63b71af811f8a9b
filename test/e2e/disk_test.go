//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/everynode/everynode/test/e2e/cluster"
)

// A server whose disk is full says so, refuses writes, goes on reading, and recovers by itself when
// there is space again.
func TestDiskFull(t *testing.T) {
	h := &host{Machine: cluster.NewMachine(t, "disk"), t: t, p: programs(t)}
	const kubeconfig = "/var/lib/everynode/admin.kubeconfig"
	sh := func(script string) cluster.Result { t.Helper(); return h.run("sh", "-c", script) }
	kubectl := func(args ...string) cluster.Result {
		t.Helper()
		return h.run(append([]string{h.p.Kubectl, "--kubeconfig", kubeconfig}, args...)...)
	}
	if r := sh("mkdir -p /var/lib/everynode && mount -t tmpfs -o size=512m disk /var/lib/everynode"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	server := h.Start("server", h.p.Everynode, "server")
	readyz := func(want string) {
		t.Helper()
		cluster.Await(t, "/readyz says "+want, 60*time.Second, func(context.Context) error {
			select {
			case <-server.Done():
				return cluster.Fatal(fmt.Errorf("the server has ended"))
			default:
			}
			if r := kubectl("get", "--raw", "/readyz?verbose"); !strings.Contains(r.Stdout+r.Stderr, want) {
				return fmt.Errorf("%s%s", r.Stdout, r.Stderr)
			}
			return nil
		})
	}
	readyz("readyz check passed")
	if r := kubectl("create", "configmap", "before"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}

	sh("cat /dev/zero >/var/lib/everynode/fill 2>/dev/null") // until nothing goes in any more
	readyz("[-]etcd-has-space failed")
	if r := kubectl("create", "configmap", "refused"); r.Code == 0 || !strings.Contains(r.Stderr, "the disk of") {
		t.Errorf("a write on a full disk: code %d: %s", r.Code, r.Stderr)
	}
	if r := kubectl("get", "configmap", "before"); r.Code != 0 {
		t.Errorf("a read on a full disk: %s", r.Stderr)
	}
	if r := kubectl("get", "--raw", "/livez"); r.Code != 0 {
		t.Errorf("/livez on a full disk: %s", r.Stderr)
	}
	if r := sh("rm /var/lib/everynode/fill"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	readyz("readyz check passed")
	if r := kubectl("create", "configmap", "after"); r.Code != 0 {
		t.Errorf("a write when there is space again: %s", r.Stderr)
	}
}
