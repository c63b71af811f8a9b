package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/everynode/everynode/internal/agent"
	"github.com/everynode/everynode/internal/cli/server"
)

func TestExitCodes(t *testing.T) {
	for name, c := range map[string]struct {
		args string
		code int
		out  string // part of what is said, on either stream
	}{
		"no command":       {"", exitOK, "everynode keeps exactly one copy"},
		"help":             {"up --help", exitOK, "everynode up --node-ip 192.0.2.10"},
		"version":          {"version", exitOK, "everynode unknown (Kubernetes "},
		"unknown command":  {"upp", exitUsage, `unknown command "upp" of "everynode"; did you mean "up"?` + "\nSee `everynode --help`."},
		"unknown token":    {"token remove", exitUsage, `unknown command "remove" of "everynode token"`},
		"unknown flag":     {"up --nope", exitUsage, "unknown flag: --nope\nSee `everynode up --help`."},
		"an argument":      {"down now", exitUsage, `everynode down takes no arguments, only flags; what is "now"?`},
		"bad value":        {"server --listen localhost:1", exitUsage, "--listen \"localhost:1\": must name an address"},
		"agent, no server": {"agent", exitUsage, "--server is required"},
		"bad output":       {"version -o xml", exitUsage, "--output \"xml\""},
		"revoke what":      {"token revoke", exitUsage, "which token?"},
		"why what":         {"why", exitUsage, "which DaemonSet?"},
		"why not a pod":    {"why pod/x", exitUsage, "only DaemonSets can be explained"},
		"why in xml":       {"why ds/x -o xml", exitUsage, "want table, wide or json"},
		"why of what":      {"why ds/x --kubeconfig a --data-dir b", exitUsage, "give one"},
		"why where":        {"why ds/x --data-dir /nonexistent", exitFailure, "there is no /nonexistent/admin.kubeconfig"},
		"plan what":        {"plan", exitUsage, "which manifest?"},
		"plan nothing":     {"plan -f /dev/null", exitFailure, "the manifests hold no DaemonSet"},
		"no kubeconfig":    {"token list --data-dir /nonexistent", exitFailure, "there is no /nonexistent/admin.kubeconfig"},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if code := run(context.Background(), strings.Fields(c.args), &b, &b); code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			if !strings.Contains(b.String(), c.out) {
				t.Errorf("no %q in:\n%s", c.out, b.String())
			}
		})
	}
}

func TestVersionJSON(t *testing.T) {
	var b bytes.Buffer
	if code := run(context.Background(), []string{"version", "-o", "json"}, &b, &b); code != exitOK {
		t.Fatalf("exit code %d: %s", code, b.String())
	}
	var info versionInfo
	if err := json.Unmarshal(b.Bytes(), &info); err != nil || info.Kubernetes == "" || info.Go == "" {
		t.Errorf("%v in %s", err, b.String())
	}
}

func TestReport(t *testing.T) {
	cmd := &cobra.Command{Use: "everynode"}
	for _, c := range []struct {
		err  error
		code int
		out  string
	}{
		{nil, exitOK, ""},
		{exitCode(7), 7, ""},
		{errors.New("up: no"), exitFailure, "everynode: up: no\n"},
		{errors.Join(errors.New("one"), errors.New("two")), exitFailure, "everynode: one\n  two\n"},
		{fmt.Errorf("wrapped: %w", usagef("bad")), exitUsage, "everynode: wrapped: bad\nSee `everynode --help`.\n"},
	} {
		var b bytes.Buffer
		if code := report(&b, cmd, c.err); code != c.code || b.String() != c.out {
			t.Errorf("%v: code %d, said %q; want %d, %q", c.err, code, b.String(), c.code, c.out)
		}
	}
}

// Every command that a person can type says what it does and shows how, in its --help.
func TestHelpTeaches(t *testing.T) {
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Name() == "completion" || cmd.Name() == "help" || cmd.Hidden { // cobra's own, and nobody's
			return
		}
		if cmd.Short == "" || cmd.Example == "" {
			t.Errorf("%s: has no summary or no example", cmd.CommandPath())
		}
		for _, line := range strings.Split(cmd.Long+"\n"+cmd.Example, "\n") {
			if len(line) > 100 {
				t.Errorf("%s: a line of its help is too wide for a terminal: %s", cmd.CommandPath(), line)
			}
		}
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(newRoot())
}

func upWith(t *testing.T, change func(*upOptions)) *upOptions {
	t.Helper()
	o := &upOptions{
		server: server.Options{
			DataDir: "/d", Listen: server.DefaultListen, ClusterCIDR: server.DefaultClusterCIDR, ServiceCIDR: server.DefaultServiceCIDR,
			NodeCIDRMaskSize: 24, NodeMonitorGracePeriod: server.DefaultNodeMonitorGracePeriod,
		},
		agent: agent.Options{NodeName: "n", DataDir: "/d", Server: "https://127.0.0.1:6443"},
	}
	change(o)
	return o
}

func TestUpArguments(t *testing.T) {
	local := upWith(t, func(*upOptions) {})
	local.agent.ListenLoopbackOnly = local.loopbackOnly()
	if got := strings.Join(local.serverArgs(), " "); !strings.Contains(got, "--listen 127.0.0.1:6443") || !strings.Contains(got, "--also-listen 10.42.0.1:6443") {
		t.Errorf("server of a machine by itself: %s", got)
	}
	if got := strings.Join(local.agentArgs(), " "); !strings.Contains(got, "--listen-loopback-only") || !strings.Contains(got, "--api-service-ip 10.43.0.1") {
		t.Errorf("agent of a machine by itself: %s", got)
	}
	open := upWith(t, func(o *upOptions) {
		o.server.Listen = listenFor(o.server.Listen, false, "192.0.2.10")
		o.agent.NodeIP = "192.0.2.10"
		o.agent.NodeLabels = map[string]string{"b": "2", "a": "1"}
	})
	if got := strings.Join(open.serverArgs(), " "); !strings.Contains(got, "--listen 192.0.2.10:6443") || strings.Contains(got, "--also-listen") {
		t.Errorf("server that others reach: %s", got)
	}
	if got := strings.Join(open.agentArgs(), " "); strings.Contains(got, "loopback") || !strings.HasSuffix(got, "--node-ip 192.0.2.10 --node-labels a=1,b=2") {
		t.Errorf("agent that others reach: %s", got)
	}
	if got := open.joinHost(); got != "192.0.2.10" {
		t.Errorf("others join at %s", got)
	}
	for given, want := range map[bool]string{true: "127.0.0.1:1", false: "192.0.2.10:1"} {
		if got := listenFor("127.0.0.1:1", given, "192.0.2.10"); got != want {
			t.Errorf("--listen given %v: got %s", given, got)
		}
	}
}

func TestDaemonSetArguments(t *testing.T) {
	for args, want := range map[string]string{
		"ds/a": "a", "daemonset.apps/a": "a", "a": "a", "ds a": "a", "DaemonSets/a n1 n2": "a n1 n2", "ds a n1": "a n1", "a n1": "a n1",
	} {
		name, nodes, err := daemonSetArguments(strings.Fields(args))
		if got := strings.Join(append([]string{name}, nodes...), " "); got != want || err != nil {
			t.Errorf("%s: got %q, %v", args, got, err)
		}
	}
	for _, args := range []string{"", "ds", "ds/", "deploy/a"} {
		if _, _, err := daemonSetArguments(strings.Fields(args)); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}

// As a plugin of kubectl, everynode is called by kubectl's name, and has no data directory.
func TestPlugin(t *testing.T) {
	var b bytes.Buffer
	if code := runRoot(context.Background(), newPlugin(), []string{"why", "--help"}, &b, &b); code != exitOK {
		t.Fatalf("exit code %d", code)
	}
	if out := b.String(); !strings.Contains(out, "kubectl everynode why ds/NAME") || strings.Contains(out, "--data-dir string") {
		t.Errorf("help:\n%s", out)
	}
	b.Reset()
	if code := runRoot(context.Background(), newPlugin(), []string{"up"}, &b, &b); code != exitUsage {
		t.Errorf("up as a plugin: exit code %d", code)
	}
}

func TestPassedOn(t *testing.T) {
	fs := pflag.NewFlagSet("up", pflag.ContinueOnError)
	configFile := agentFlags(fs, &agent.Options{})
	if err := fs.Parse([]string{"--config", "/c.yaml", "--pod-manifest-path=", "--node-name", "n"}); err != nil {
		t.Fatal(err)
	}
	got, err := passedOn(fs, *configFile)
	if err != nil || strings.Join(got, " ") != "--config /c.yaml --pod-manifest-path=" {
		t.Errorf("the agent is given %q, %v", got, err)
	}
}
