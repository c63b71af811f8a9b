//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/everynode/everynode/test/e2e/cluster"
)

// A node that is cut off the network becomes Unknown and unreachable, and its pods run on. When it is
// back, nothing has happened to them, and what was changed meanwhile is done. After a power failure
// the same pods run again.
func TestNodeCutOff(t *testing.T) {
	c := cluster.New(t, programs(t), "--node-monitor-grace-period", "15s")
	cut, other := c.AddNode(), c.AddNode()
	c.AwaitReady()
	c.Apply(daemonSet("web", "serve", "8080"))
	before := awaitOnEach(t, c, "web", 60*time.Second)
	is := func(what string, status corev1.ConditionStatus, taints ...string) {
		t.Helper()
		cluster.Await(t, what, time.Minute, func(ctx context.Context) error {
			node, err := c.Client().CoreV1().Nodes().Get(ctx, cut.Name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			has := map[string]bool{}
			for _, taint := range node.Spec.Taints {
				has[taint.Key+":"+string(taint.Effect)] = true
			}
			got := corev1.ConditionStatus("")
			for _, condition := range node.Status.Conditions {
				if condition.Type == corev1.NodeReady {
					got = condition.Status
				}
			}
			for _, taint := range taints {
				if !has[taint] {
					return fmt.Errorf("no taint %s among %v", taint, has)
				}
			}
			if got != status || len(has) != len(taints) {
				return fmt.Errorf("ready: %s, taints %v", got, has)
			}
			return nil
		})
	}

	mend := cut.Cut()
	is("the cut-off node is unknown and tainted", corev1.ConditionUnknown, corev1.TaintNodeUnreachable+":NoSchedule", corev1.TaintNodeUnreachable+":NoExecute")
	if out := c.MustKubectl("get", "node", cut.Name, "--no-headers"); !strings.Contains(out, " NotReady ") {
		t.Errorf("get node: %s", out)
	}
	if r := c.Everynode("", "why", "ds/web"); !regexp.MustCompile(`(?m)^` + cut.Name + ` .*the node is silent: the last sign of life of its agent is \d+s old`).MatchString(r.Stdout) {
		t.Errorf("why:\n%s%s", r.Stdout, r.Stderr)
	}
	if r := c.Everynode("", "why", "ds/web"); strings.Contains(line(r.Stdout, other.Name), "silent") {
		t.Errorf("why:\n%s", r.Stdout)
	}
	unharmed(t, c, "web", before)
	cluster.Await(t, "its pod is no longer counted as ready", 20*time.Second, func(ctx context.Context) error {
		pods, err := podsOf(ctx, c, "web")
		if err == nil && ready(pods[cut.Name]) {
			err = fmt.Errorf("it is")
		}
		return err
	})
	if _, id, err := cut.Exec(t.Context(), string(before[cut.Name].UID), "/bin/testapp", "hostname"); err != nil || id != strings.TrimPrefix(containerID(before[cut.Name]), "containerd://") {
		t.Errorf("on the node itself container %s runs, want %s: %v", id, containerID(before[cut.Name]), err)
	}
	c.Apply(onNode(cut.Name, "meanwhile", "", "sleep"))

	mend()
	is("the node is back", corev1.ConditionTrue)
	awaitPod(t, c, "meanwhile", time.Minute, ready)
	awaitOnEach(t, c, "web", time.Minute)
	unharmed(t, c, "web", before)
	if out := c.MustKubectl("logs", before[cut.Name].Name); !strings.Contains(out, "listening on") {
		t.Errorf("logs of the pod on the node that is back: %s", out)
	}
	sandboxes(t, c, cut)

	// A power failure ends the containers, not the pods.
	meanwhile := awaitPod(t, c, "meanwhile", time.Minute, ready)
	cut.Reboot(c.JoinToken())
	for _, was := range []*corev1.Pod{before[cut.Name], meanwhile} {
		now := awaitPod(t, c, was.Name, time.Minute, func(pod *corev1.Pod) bool { return ready(pod) && containerID(pod) != containerID(was) })
		if now.UID != was.UID || restarts(now) != 1 {
			t.Errorf("after the reboot pod %s has UID %s, was %s, and %d restarts", was.Name, now.UID, was.UID, restarts(now))
		}
	}
	is("the rebooted node is ready", corev1.ConditionTrue)
	sandboxes(t, c, cut)
	if r := c.Kubectl("exec", before[cut.Name].Name, "--", "/bin/testapp", "api", "/version"); r.Code != 0 {
		t.Errorf("the pod reaches the API no more: %s%s", r.Stdout, r.Stderr)
	}
}

// line is the line of a text that begins with a word.
func line(text, word string) string {
	for l := range strings.Lines(text) {
		if strings.HasPrefix(l, word+" ") {
			return l
		}
	}
	return ""
}

// An agent that finds no server says so once, tries on, and joins when the server comes.
func TestJoinBeforeTheServer(t *testing.T) {
	c := cluster.New(t, programs(t))
	token := c.JoinToken()
	c.Server.Kill()
	tries := make(chan struct{})
	deaf := c.Switch.Listen(strings.TrimPrefix(cluster.ServerURL, "https://"))
	go func() {
		for {
			conn, err := deaf.Accept()
			if err != nil {
				close(tries)
				return
			}
			_, _ = conn.Read(make([]byte, 4096)) // what is left unread makes a reset of the end
			_ = conn.Close()
			tries <- struct{}{}
		}
	}()
	n := c.AddMachine()
	n.StartContainerd()
	n.StartAgent(token)
	for range 4 {
		select {
		case <-tries:
		case <-n.Agent.Done():
			t.Fatal("the agent gave up")
		case <-time.After(30 * time.Second):
			t.Fatal("the agent does not try again")
		}
	}
	said, err := os.ReadFile(n.Agent.Log)
	if err != nil {
		t.Fatal(err)
	}
	if lines := regexp.MustCompile(`(?m)^.*not joined yet; will keep trying.*$`).FindAllString(string(said), -1); len(lines) != 1 || !strings.Contains(lines[0], cluster.ServerURL) {
		t.Errorf("four tries are told in %d lines:\n%s", len(lines), said)
	}
	go func() { // what is tried until the listener is closed
		for range tries {
		}
	}()
	_ = deaf.Close()
	c.StartServer()
	c.AwaitServer()
	c.AwaitReady(n)
}
