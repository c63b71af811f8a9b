//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/everynode/everynode/test/e2e/cluster"
)

// Who may not join is told why in one line, and no Node appears.
func TestJoin(t *testing.T) {
	p := programs(t)
	c := cluster.New(t, p)
	n := c.AddMachine()
	n.StartContainerd()
	good := strings.TrimSpace(c.JoinToken())
	parts := strings.Split(good, ".")

	refused := func(name, token string, reason *regexp.Regexp) {
		t.Helper()
		n.StartAgent(token, "-v", "0")
		awaitEnd(t, n)
		if said := onlyLine(t, n.Agent); !reason.MatchString(said) {
			t.Errorf("%s: the agent says: %s", name, said)
		}
		forgetLog(t, n)
		if _, err := c.Client().CoreV1().Nodes().Get(context.Background(), n.Name, metav1.GetOptions{}); err == nil {
			t.Errorf("%s: there is a Node all the same", name)
		}
	}

	refused("not a token", "hello", regexp.MustCompile(`join token`))
	refused("a token of another server", strings.Join([]string{parts[0], strings.Repeat("0", 64), parts[2], parts[3]}, "."), regexp.MustCompile(`(?i)\bCA\b|authority|other server`))
	refused("a wrong secret", strings.Join([]string{parts[0], parts[1], parts[2], strings.Repeat("x", 16)}, "."), regexp.MustCompile(`(?i)token`))

	token := func(args ...string) cluster.Result {
		t.Helper()
		r, err := c.Switch.Run(context.Background(), append([]string{p.Everynode, "token"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	made := token("create", "--ttl", "10m", "--description", "for a test")
	if made.Code != 0 {
		t.Fatalf("token create: %s", made.Stderr)
	}
	id := strings.Split(made.Stdout, ".")[2]
	if list := token("list"); !regexp.MustCompile(id + ` +(9|10)m\S* +for a test`).MatchString(list.Stdout) {
		t.Errorf("token list:\n%s", list.Stdout)
	}
	if r := token("revoke", id); r.Code != 0 {
		t.Errorf("token revoke: %s", r.Stderr)
	}
	if list := token("list"); strings.Contains(list.Stdout, id) {
		t.Errorf("token list after the revocation:\n%s", list.Stdout)
	}
	refused("a revoked token", made.Stdout, regexp.MustCompile(`(?i)token`))

	n.StartAgent(good)
	c.AwaitReady(n)

	// Another machine of the same name is not let in, until the Node is deleted.
	twin := c.AddMachine()
	twin.StartContainerd()
	twin.Name = n.Name
	twin.StartAgent(good, "-v", "0")
	awaitEnd(t, twin)
	onlyLine(t, twin.Agent, fmt.Sprintf("node name %q is taken", n.Name), "kubectl delete node "+n.Name, "--node-name")
	if said := logLines(t, n.Agent, "taken"); len(said) > 0 {
		t.Errorf("the agent that has the name says: %s", said)
	}
	n.Agent.Kill()
	c.MustKubectl("delete", "node", n.Name)
	twin.StartAgent(good)
	c.AwaitReady(twin)
}
