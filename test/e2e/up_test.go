//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/everynode/everynode/test/e2e/cluster"
)

// host is a machine on which `everynode up` is tried, as a user would on theirs.
type host struct {
	*cluster.Machine
	t testing.TB
	p cluster.Programs
}

func newHost(t testing.TB) *host {
	t.Helper()
	h := &host{Machine: cluster.NewMachine(t, "up"), t: t, p: programs(t)}
	if err := h.AddUplink(); err != nil {
		t.Fatal(err)
	}
	dir := h.Path("/var/lib/everynode/images")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, image := range h.p.Images {
		if err := os.Link(image, filepath.Join(dir, filepath.Base(image))); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func (h *host) run(argv ...string) cluster.Result {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	r, err := h.Run(ctx, argv...)
	if err != nil {
		h.t.Fatalf("%v: %v", argv, err)
	}
	return r
}

func (h *host) everynode(args ...string) cluster.Result {
	h.t.Helper()
	return h.run(append([]string{h.p.Everynode}, args...)...)
}

// must runs an everynode command that has to succeed, and returns what it prints.
func (h *host) must(args ...string) string {
	h.t.Helper()
	r := h.everynode(args...)
	if r.Code != 0 {
		h.t.Fatalf("everynode %s: exit code %d\n%s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
	h.t.Logf("everynode %s\n%s%s", strings.Join(args, " "), r.Stdout, r.Stderr)
	return r.Stdout
}

// get asks a program in the machine over HTTP.
func (h *host) get(url string) (string, error) {
	client := &http.Client{Transport: &http.Transport{DialContext: h.Dial, DisableKeepAlives: true}, Timeout: 5 * time.Second}
	response, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return string(body), err
}

// traces are what `down` must not leave behind, one kind a section.
func (h *host) traces() map[string]string {
	h.t.Helper()
	shell := func(script string) string {
		lines := strings.Split(strings.TrimSpace(h.run("sh", "-c", script).Stdout), "\n")
		sort.Strings(lines)
		return strings.Join(lines, "\n")
	}
	cgroups, err := filepath.Glob("/sys/fs/cgroup/*/everynode-" + h.Name + "*")
	if err != nil {
		h.t.Fatal(err)
	}
	more, err := filepath.Glob("/sys/fs/cgroup/everynode-" + h.Name + "*")
	if err != nil {
		h.t.Fatal(err)
	}
	return map[string]string{
		"processes":          h.processes(),
		"mounts":             shell(`cut -d' ' -f5 /proc/self/mountinfo | grep -E '^/(run|var/l|sys|proc|$)'`),
		"network namespaces": shell("ls /run/netns /var/run/netns 2>/dev/null; true"),
		"links":              shell("ls /proc/sys/net/ipv4/conf"),
		"addresses":          shell("ip -o address | awk '{print $2, $4}'"),
		"routes":             shell("ip route show table all | grep -Ev '^broadcast|fe80:|ff00:|^multicast' | sed 's/ linkdown//'"),
		"rules":              shell("ip rule"),
		"iptables":           shell(`iptables-save | grep -E '^-A|^:.* - '; true`),
		"cgroups":            strings.Join(append(cgroups, more...), "\n"),
	}
}

// processes are the command lines in the machine, but for the shell that asks.
func (h *host) processes() string {
	out := h.run("sh", "-c", `for p in /proc/[0-9]*; do [ "${p#/proc/}" = $$ ] || tr '\0' ' ' <$p/cmdline 2>/dev/null && echo; done`).Stdout
	var lines []string
	for _, line := range strings.Split(out, "\n") {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "tr ") {
			lines = append(lines, line)
		}
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

func (h *host) leftNothing(before map[string]string) {
	h.t.Helper()
	after := h.traces()
	for kind, was := range before {
		if is := after[kind]; is != was {
			h.t.Errorf("%s before:\n%s\nand after down:\n%s", kind, was, is)
		}
	}
}

// stoppedCleanly checks that the server has ended the watches it served rather than left them.
func (h *host) stoppedCleanly() {
	h.t.Helper()
	text, err := os.ReadFile(h.Path("/var/lib/everynode/logs/server.log"))
	if err != nil {
		h.t.Fatal(err)
	}
	for _, bad := range []string{"Failed to shutdown server", "did not stop in time"} {
		if strings.Contains(string(text), bad) {
			h.t.Errorf("the stopped server says %q", bad)
		}
	}
}

// exporterPID is the process of node-exporter's container, as the machine sees it.
func (h *host) exporterPID() int {
	h.t.Helper()
	out := h.run("sh", "-c", `for p in /proc/[0-9]*; do case $(tr '\0' ' ' <$p/cmdline 2>/dev/null) in /bin/node_exporter*) echo ${p#/proc/};; esac; done`).Stdout
	pids := strings.Fields(out)
	if len(pids) != 1 {
		h.t.Fatalf("processes of node-exporter: %q, want one", out)
	}
	pid, err := strconv.Atoi(pids[0])
	if err != nil {
		h.t.Fatal(err)
	}
	return pid
}

func (h *host) awaitMetrics() {
	h.t.Helper()
	cluster.Await(h.t, "node-exporter answers", 60*time.Second, func(context.Context) error {
		body, err := h.get("http://127.0.0.1:9100/metrics")
		if err == nil && !strings.Contains(body, fmt.Sprintf("nodename=%q", h.Name)) {
			err = fmt.Errorf("the metrics are not of this machine: %s", body)
		}
		return err
	})
}

// The first ten minutes of a user: up, an example, look at it from all sides, up again, a crash,
// down, up, down for good.
func TestUp(t *testing.T) {
	h := newHost(t)
	before := h.traces()
	example, err := filepath.Abs("../../examples/node-exporter.yaml")
	if err != nil {
		t.Fatal(err)
	}

	if out := h.must("down"); !strings.Contains(out, "nothing was running") {
		t.Errorf("down on a fresh machine: %s", out)
	}
	out := h.must("up")
	for _, want := range []string{"containerd ready after", "node " + h.Name + " is ready", "/var/lib/everynode/admin.kubeconfig", "everynode up --node-ip"} {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
			t.Errorf("up does not say %q:\n%s", want, out)
		}
	}
	h.must("kubectl", "apply", "-f", example)
	h.must("kubectl", "-n", "monitoring", "rollout", "status", "ds/node-exporter", "--timeout=60s")
	h.awaitMetrics()
	h.looks(t)

	first := h.exporterPID()
	if out := h.must("up"); !strings.Contains(out, "already running; nothing changed") {
		t.Errorf("the second up says:\n%s", out)
	}
	if r := h.everynode("up", "--node-labels", "a=b"); r.Code != 1 || !strings.Contains(r.Stderr, "everynode down") {
		t.Errorf("up with other flags: code %d, %s", r.Code, r.Stderr)
	}
	if pid := h.exporterPID(); pid != first {
		t.Errorf("the second up replaced process %d by %d", first, pid)
	}

	// Everything of ours dies; the container does not, and is found again.
	h.run("sh", "-c", "kill -9 $(cat /run/everynode/supervisor.pid)")
	cluster.Await(t, "the supervisor's processes die with it", 10*time.Second, func(context.Context) error {
		if out := h.processes(); strings.Contains(out, "everynode server") || strings.Contains(out, "containerd --config") {
			return fmt.Errorf("processes:\n%s", out)
		}
		return nil
	})
	h.awaitMetrics()
	h.must("up")
	h.must("kubectl", "-n", "monitoring", "rollout", "status", "ds/node-exporter", "--timeout=60s")
	if pid := h.exporterPID(); pid != first {
		t.Errorf("up after a crash replaced process %d by %d", first, pid)
	}

	if out := h.must("down"); !strings.Contains(out, "the data stays") {
		t.Errorf("down says:\n%s", out)
	}
	h.leftNothing(before)
	h.stoppedCleanly()
	h.must("up")
	h.awaitMetrics()
	h.must("kubectl", "-n", "monitoring", "rollout", "status", "ds/node-exporter", "--timeout=60s")

	// A down that finds no supervisor, only what it left running.
	h.run("sh", "-c", "kill -9 $(cat /run/everynode/supervisor.pid)")
	h.must("down", "--purge")
	h.leftNothing(before)
	for _, path := range []string{"/var/lib/everynode", "/var/log/pods", "/var/log/containers"} {
		if _, err := os.Stat(h.Path(path)); err == nil {
			t.Errorf("%s is still there after down --purge", path)
		}
	}
}

// looks at the DaemonSet with the embedded kubectl and with the stock one.
func (h *host) looks(t *testing.T) {
	t.Helper()
	const kubeconfig = "/var/lib/everynode/admin.kubeconfig"
	for name, kubectl := range map[string][]string{
		"embedded": {h.p.Everynode, "kubectl"},
		"stock":    {h.p.Kubectl, "--kubeconfig", kubeconfig},
	} {
		for _, c := range []struct{ args, want string }{
			{"get ds,pods,nodes -A -o wide", "daemonset.apps/node-exporter"},
			{"-n monitoring get ds node-exporter -o jsonpath={.status.numberReady}", "1"},
			{"-n monitoring describe ds node-exporter", "SuccessfulCreate"},
			{"-n monitoring logs ds/node-exporter", "listening on :9100"},
			{"-n monitoring exec ds/node-exporter -- /bin/testapp hostname", h.Name},
			{"-n monitoring exec ds/node-exporter -- /bin/testapp cat /host/root/proc/sys/kernel/hostname", h.Name},
			{"auth can-i create daemonsets -n monitoring", "yes"},
		} {
			r := h.run(append(kubectl, strings.Fields(c.args)...)...)
			if r.Code != 0 || !strings.Contains(r.Stdout, c.want) {
				t.Errorf("%s kubectl %s: code %d, want %q in\n%s%s", name, c.args, r.Code, c.want, r.Stdout, r.Stderr)
			}
		}
		// A terminal: script gives kubectl one.
		command := strings.Join(kubectl, " ") + " -n monitoring exec -it ds/node-exporter -- /bin/testapp echo from a terminal"
		if r := h.run("script", "-qec", command, "/dev/null"); r.Code != 0 || !strings.Contains(r.Stdout, "from a terminal") {
			t.Errorf("%s kubectl exec -it: code %d\n%s%s", name, r.Code, r.Stdout, r.Stderr)
		}
	}
}

// What is in the way of `up` is told before anything is started, with what to do.
func TestUpInTheWay(t *testing.T) {
	h := newHost(t)
	before := h.traces()
	busy := h.Start("busy", h.p.Everynode, "server", "--data-dir", "/var/lib/other")
	cluster.Await(t, "something listens on the port", 30*time.Second, func(context.Context) error {
		conn, err := h.Dial(context.Background(), "tcp", "127.0.0.1:6443")
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if r := h.everynode("up"); r.Code != 1 || !strings.Contains(r.Stderr, "127.0.0.1:6443") || !strings.Contains(r.Stderr, "--listen") {
		t.Errorf("up with the port taken: code %d\n%s", r.Code, r.Stderr)
	}
	busy.Kill()
	if r := h.everynode("up", "--node-ip", "192.0.2.77"); r.Code != 1 || !strings.Contains(r.Stderr, "no address of this machine") {
		t.Errorf("up with a foreign address: code %d\n%s", r.Code, r.Stderr)
	}
	if r := h.everynode("up", "--nodeip", "x"); r.Code != 2 || !strings.Contains(r.Stderr, "--help") {
		t.Errorf("up with an unknown flag: code %d\n%s", r.Code, r.Stderr)
	}
	if r := h.run("env", "PATH=/nowhere", h.p.Everynode, "kubectl", "get", "nodes"); r.Code != 1 || !strings.Contains(r.Stderr, "everynode up") {
		t.Errorf("kubectl without a cluster: code %d\n%s", r.Code, r.Stderr)
	}
	h.leftNothing(before)
}
