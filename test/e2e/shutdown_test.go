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

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/everynode/everynode/test/e2e/cluster"
)

// stopNotes is where pods note that they stop, and the file that they stop by.
const stopNotes = "/var/lib/stopping"

// noting has a pod write down that it stops, and take its time until the test lets it.
func noting(manifest, name string) string {
	return strings.Replace(strings.Replace(manifest, "terminationGracePeriodSeconds: 2", "terminationGracePeriodSeconds: 50\n      volumes: [{name: notes, hostPath: {path: "+stopNotes+"}}]", 1),
		`image: "`+appImage+`", `, fmt.Sprintf(`image: %q, volumeMounts: [{name: notes, mountPath: /host}],
        lifecycle: {preStop: {exec: {command: [/bin/testapp, note, /host/notes, %[2]s, until, /host/%[2]s-may-end]}}}, `, appImage, name), 1)
}

// A machine that is switched off waits for its pods: daemons stop when the others have, and it goes
// down when they have too. The login manager and systemctl are the real ones.
func TestMachineShutdown(t *testing.T) {
	p := programs(t)
	c := cluster.New(t, p)
	n := c.AddMachine()
	if err := os.Mkdir(n.Path(stopNotes), 0o755); err != nil {
		t.Fatal(err)
	}
	n.StartContainerd()
	systemd := n.BootSystemd()
	systemd.StartLogind("cd " + stopNotes + "; flock -n notes true || echo too early >>notes; echo off >>notes")
	must := func(argv ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		r, err := systemd.Run(ctx, argv...)
		if err != nil || r.Code != 0 {
			t.Fatalf("%v: %v, code %d\n%s%s", argv, err, r.Code, r.Stdout, r.Stderr)
		}
		return r.Stdout
	}
	n.Configure("shutdownGracePeriod: 110s\nshutdownGracePeriodCriticalPods: 55s\n")
	token := filepath.Join(cluster.DataDir, "join-token")
	if err := os.WriteFile(n.Path(token), []byte(c.JoinToken()), 0o600); err != nil {
		t.Fatal(err)
	}
	must(p.Everynode, "install", "agent", "--server", cluster.ServerURL, "--token-file", token, "--node-name", n.Name, "--node-ip", n.Address, "--config", cluster.DataDir+"/agent.yaml",
		"--runtime-endpoint", "unix:///run/everynode/containerd.sock", "--cni-conf-dir", cluster.DataDir+"/cni/net.d")
	c.AwaitReady()
	c.Apply(noting(daemonSet("daemon", "sleep"), "daemon"))
	c.Apply(strings.ReplaceAll(noting(daemonSet("web", "sleep"), "web"), "kind: DaemonSet", "kind: Deployment"))
	awaitOnEach(t, c, "daemon", time.Minute)
	awaitOnEach(t, c, "web", time.Minute)
	if list := must("systemd-inhibit", "--list", "--no-legend"); !strings.Contains(list, "everynode") {
		t.Fatalf("nothing would hold a shutdown up:\n%s", list)
	}
	if said := must("busctl", "get-property", "org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager", "InhibitDelayMaxUSec"); strings.TrimSpace(said) != "t 110000000" {
		t.Errorf("it would be held up for %s", said)
	}

	must("systemctl", "poweroff", "--no-wall")
	notes := func(want ...string) {
		t.Helper()
		cluster.Await(t, fmt.Sprintf("the notes are %q", want), time.Minute, func(context.Context) error {
			text, err := os.ReadFile(n.Path(stopNotes + "/notes"))
			if err != nil {
				return err
			}
			lines := strings.Split(strings.TrimSpace(string(text)), "\n")
			for i, line := range lines {
				if i >= len(want) || !strings.HasPrefix(line, want[i]) || strings.Contains(line, "beside another") {
					return cluster.Fatal(fmt.Errorf("they are %q", lines))
				}
			}
			if len(lines) < len(want) {
				return fmt.Errorf("they are %q so far", lines)
			}
			return nil
		})
	}
	end := func(name string) {
		t.Helper()
		if err := os.WriteFile(n.Path(stopNotes+"/"+name+"-may-end"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	notes("web ")
	cluster.Await(t, "the node says that it is shutting down", time.Minute, func(ctx context.Context) error {
		node, err := c.Client().CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionFalse && condition.Message == "node is shutting down" {
				return nil
			}
		}
		return fmt.Errorf("conditions %+v", node.Status.Conditions)
	})
	c.Apply(onNode(n.Name, "late", "", "sleep"))
	if late := awaitPod(t, c, "late", 30*time.Second, hasEnded); late.Status.Reason != "NodeShutdown" {
		t.Errorf("a pod that came later: %s: %s", late.Status.Reason, late.Status.Message)
	}
	notes("web ")
	end("web")
	notes("web ", "daemon ")
	end("daemon")
	notes("web ", "daemon ", "off")
}
