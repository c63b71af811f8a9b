//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/everynode/everynode/test/e2e/cluster"
)

// rounds of killing; each kills one process at a random moment of some change to the cluster.
const rounds = 9

// A server, an agent or a containerd that is killed loses no pod, doubles none and restarts no
// container: not those that run, and not those that are being made at that moment.
func TestKill(t *testing.T) {
	random := rand.New(rand.NewPCG(seedOf(t), 0))

	c := cluster.New(t, programs(t))
	c.AddNode()
	c.AddNode()
	c.AwaitReady()
	c.Apply(daemonSet("steady", "sleep"))
	steady := awaitOnEach(t, c, "steady", 60*time.Second)

	kills := []struct {
		what string
		kill func() (restart func())
	}{
		{"the server", func() func() {
			c.Server.Kill()
			return func() { c.StartServer(); c.AwaitServer() }
		}},
		{"an agent", func() func() {
			n := c.Nodes[random.IntN(2)]
			n.Agent.Kill()
			return func() { n.StartAgent(c.JoinToken()) }
		}},
		{"a containerd", func() func() {
			n := c.Nodes[random.IntN(2)]
			n.Containerd.Kill()
			return n.StartContainerd
		}},
	}
	for round := range rounds {
		name := fmt.Sprintf("round%d", round)
		victim := kills[round%len(kills)]
		c.Apply(daemonSet(name, "sleep"))
		wait := time.Duration(random.IntN(600)) * time.Millisecond
		t.Logf("round %d: %s is killed %s after the apply", round, victim.what, wait)
		time.Sleep(wait)
		restart := victim.kill()
		time.Sleep(time.Duration(random.IntN(500)) * time.Millisecond)
		restart()
		made := awaitOnEach(t, c, name, 90*time.Second)
		unharmed(t, c, "steady", steady)
		for _, pod := range made {
			if r := restarts(pod); r != 0 {
				t.Errorf("%s: pod %s was made with %d restarts: %+v", name, pod.Name, r, pod.Status.ContainerStatuses)
			}
		}
		if round%2 == 1 {
			c.MustKubectl("delete", "ds", name, "--timeout=60s")
		}
	}
	c.AwaitReady()
	unharmed(t, c, "steady", steady)
	for _, n := range c.Nodes {
		sandboxes(t, c, n)
	}
}

// unharmed checks that the pods of an app are those from before, with the same containers.
func unharmed(t *testing.T, c *cluster.Cluster, app string, before map[string]*corev1.Pod) {
	t.Helper()
	now, err := podsOf(context.Background(), c, app)
	if err != nil {
		t.Fatal(err)
	}
	for node, was := range before {
		is := now[node]
		if is == nil {
			t.Fatalf("node %s has lost its pod of %s", node, app)
		}
		if is.UID != was.UID || containerID(is) != containerID(was) || restarts(is) != restarts(was) {
			t.Errorf("node %s: pod %s with container %s became %s with %s, %d restarts", node, was.Name, containerID(was), is.Name, containerID(is), restarts(is))
			t.Fatalf("%s", c.Kubectl("describe", "pod", is.Name).Stdout)
		}
	}
}

func containerID(pod *corev1.Pod) string {
	if len(pod.Status.ContainerStatuses) == 0 {
		return ""
	}
	return pod.Status.ContainerStatuses[0].ContainerID
}

func restarts(pod *corev1.Pod) int32 {
	var sum int32
	for _, s := range pod.Status.ContainerStatuses {
		sum += s.RestartCount
	}
	return sum
}

// sandboxes checks that the runtime has exactly the pods that the API has on a node.
func sandboxes(t *testing.T, c *cluster.Cluster, n *cluster.Node) {
	t.Helper()
	cluster.Await(t, n.Name+" runs what the API says and nothing else", 30*time.Second, func(ctx context.Context) error {
		want, err := podsOn(ctx, c, n.Name)
		if err != nil {
			return err
		}
		got, err := n.ReadySandboxes(ctx)
		if err != nil {
			return err
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("the runtime has %v, the API %v", got, want)
		}
		return nil
	})
}

// podsOn are the UIDs of the pods that the API has on a node, sorted.
func podsOn(ctx context.Context, c *cluster.Cluster, node string) ([]string, error) {
	list, err := c.Client().CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + node})
	if err != nil {
		return nil, err
	}
	uids := make([]string, 0, len(list.Items))
	for _, pod := range list.Items {
		uids = append(uids, string(pod.UID))
	}
	slices.Sort(uids)
	return uids, nil
}

// A containerd that starts again while its shims are slow to answer, as on a machine that has much to
// do, waits for them. With its own defaults it would kill the pods of those that take 5 s.
func TestSlowShims(t *testing.T) {
	c := cluster.New(t, programs(t))
	n := c.AddNode()
	c.AwaitReady()
	c.Apply(daemonSet("steady", "sleep"))
	steady := awaitOnEach(t, c, "steady", 60*time.Second)
	n.Containerd.Kill()
	signalShims(t, n, "STOP")
	time.AfterFunc(7*time.Second, func() { signalShims(t, n, "CONT") })
	n.StartContainerd()
	sandboxes(t, c, n)
	c.Apply(daemonSet("next", "sleep")) // the node is whole
	awaitOnEach(t, c, "next", 60*time.Second)
	unharmed(t, c, "steady", steady)
}

func signalShims(t *testing.T, n *cluster.Node, signal string) {
	t.Helper()
	const script = `found=0; for p in /proc/[0-9]*; do case $(tr '\0' ' ' <$p/cmdline 2>/dev/null) in /*/containerd-shim*) kill -$0 ${p#/proc/} && found=1;; esac; done; [ $found = 1 ]`
	if r, err := n.Run(context.Background(), "sh", "-c", script, signal); err != nil || r.Code != 0 {
		t.Errorf("signal %s to the shims: %v, code %d: %s", signal, err, r.Code, r.Stderr)
	}
}
