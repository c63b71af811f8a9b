package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/everynode/everynode/internal/sim"
)

func simulate(t *testing.T, args string) string {
	t.Helper()
	var b bytes.Buffer
	if code := run(context.Background(), strings.Fields("simulate "+args), &b, &b); code != exitOK {
		t.Fatalf("exit code %d: %s", code, b.String())
	}
	return b.String()
}

func TestSimulateTable(t *testing.T) {
	out := simulate(t, "--nodes 20 --max-unavailable 10%")
	for _, want := range []string{
		"DaemonSet default/agent on 20 nodes; RollingUpdate, maxUnavailable 10%; faults: none; seed 1",
		"STEP", "WAVE", "10/10", "20/20",
		"first rollout: began after 0s, took ", " in 10 waves",
		"Unavailable at worst, after the first rollout: 2 nodes",
		"at most 2 at a time; its budget is 2.",
		"Writes: 40 pods created, 20 deleted",
		"never two pods on a node: kept",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if again := simulate(t, "--nodes 20 --max-unavailable 10%"); again != out {
		t.Errorf("the same flags, another output:\n%s\n%s", out, again)
	}
}

func TestSimulateJSON(t *testing.T) {
	var r sim.Result
	if err := json.Unmarshal([]byte(simulate(t, "--nodes 20 --faults many --duration 10m --max-surge 3 -o json")), &r); err != nil {
		t.Fatal(err)
	}
	if r.Nodes != 20 || len(r.Steps) < 2 || len(r.Mishaps) < 10 || r.Budget != 3 || r.Violation != nil {
		t.Errorf("%+v", r)
	}
}

func TestSimulateFile(t *testing.T) {
	out := simulate(t, "-f ../../examples/node-exporter.yaml --nodes 10")
	if !strings.Contains(out, "DaemonSet monitoring/node-exporter on 10 nodes") || !strings.Contains(out, "10/10") {
		t.Errorf("not that of the file:\n%s", out)
	}
}

func TestSimulateRefuses(t *testing.T) {
	file := func(content string) string {
		name := filepath.Join(t.TempDir(), "ds.yaml")
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for _, c := range []struct {
		args string
		code int
		out  string
	}{
		{"--nodes 0", exitUsage, "simulate: nodes is 0, want 1 to 200000"},
		{"--faults most", exitUsage, `--faults: "most" is no level of faults: want none, some or many`},
		{"--max-unavailable 1 --max-surge 1", exitUsage, "exactly one of maxUnavailable and maxSurge must be above 0"},
		{"--max-unavailable 120%", exitUsage, "maxUnavailable is 120%, want a number from 0, or 0% to 100%"},
		{"--duration -1m", exitUsage, "duration is -1m0s, want 0s to 720h"},
		{"-o yaml", exitUsage, `--output "yaml": want table or json`},
		{"-f /nonexistent", exitFailure, "/nonexistent: no such file"},
		{"-f " + file("kind: Pod\napiVersion: v1\n---\nkind: Service\n"), exitFailure, "the manifests hold no DaemonSet"},
		{"-f " + file("kind: DaemonSet\napiVersion: extensions/v1beta1\nmetadata: {name: old}\n"), exitFailure, "extensions/v1beta1"},
		{"-f " + file("kind: DaemonSet\napiVersion: apps/v1\nspec: 3\n"), exitFailure, "ds.yaml"},
		{"-f " + file("{"), exitFailure, "ds.yaml"},
	} {
		var b bytes.Buffer
		if code := run(context.Background(), strings.Fields("simulate "+c.args), &b, &b); code != c.code || !strings.Contains(b.String(), c.out) {
			t.Errorf("%s: exit code %d, want %d with %q:\n%s", c.args, code, c.code, c.out, b.String())
		}
	}
}
