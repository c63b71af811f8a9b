//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/everynode/everynode/test/e2e/cluster"
)

// The commands that users type, and what they get to see, with the stock kubectl and with the
// embedded one. The scripts are in testdata/kubectl; they run one after the other on two nodes,
// $NODE1 and $NODE2, and each cleans up after itself.
func TestKubectl(t *testing.T) {
	c := cluster.New(t, programs(t))
	c.AddNode()
	c.AddNode()
	c.AwaitReady()
	for name, program := range map[string]string{
		"stock":    programs(t).Kubectl,
		"embedded": programs(t).Everynode + " kubectl",
	} {
		t.Run(name, func(t *testing.T) { scripts(t, c, name, program) })
	}
}

func scripts(t *testing.T, c *cluster.Cluster, name, program string) {
	bin := t.TempDir()
	for name, command := range map[string]string{"kubectl": program, "everynode": programs(t).Everynode} {
		wrapper := fmt.Sprintf("#!/bin/sh\nexec nsenter --net=/proc/%d/ns/net %s \"$@\"\n", c.Switch.PID(), command)
		if err := os.WriteFile(filepath.Join(bin, name), []byte(wrapper), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	testscript.RunT(sequential{t}, testscript.Params{
		Dir: "testdata/kubectl",
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("KUBECONFIG", c.Kubeconfig())
			env.Setenv("IMAGE", appImage)
			for i, n := range c.Nodes {
				env.Setenv(fmt.Sprintf("NODE%d", i+1), n.Name)
			}
			return nil
		},
		Condition: func(condition string) (bool, error) {
			switch condition {
			case "stock", "embedded":
				return condition == name, nil
			}
			return false, fmt.Errorf("unknown condition %q", condition)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"await": await},
	})
}

// await runs a command until its output matches: await REGEXP COMMAND...
// With a ! in front, until it does not.
func await(ts *testscript.TestScript, negated bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: [!] await REGEXP COMMAND...")
	}
	want, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		err := ts.Exec(args[1], args[2:]...)
		out := ts.ReadFile("stdout") + ts.ReadFile("stderr")
		if want.MatchString(out) != negated {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("await %s: after a minute %s says (%v):\n%s", args[0], strings.Join(args[1:], " "), err, out)
		}
	}
}

// sequential runs the scripts one after the other: they change the same two nodes.
type sequential struct{ *testing.T }

func (s sequential) Parallel() {}

func (s sequential) Verbose() bool { return testing.Verbose() }

func (s sequential) Run(name string, f func(testscript.T)) {
	s.T.Run(name, func(t *testing.T) { f(sequential{t}) })
}
