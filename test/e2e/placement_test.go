//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/everynode/everynode/test/e2e/cluster"
)

// Each begins and ends with the DaemonSet "spot" on every node, but the first, which makes it.
var placements = []fleetTest{
	{"labels", (*fleet).followsLabels},
	{"taints", (*fleet).followsTaints},
	{"cordon", (*fleet).ignoresCordons},
	{"silence, leave and join", (*fleet).followsNodes},
}

// on waits until "spot" has a ready pod on these nodes, and no pod on others.
func (f *fleet) spotOn(nodes ...string) map[string]*corev1.Pod {
	f.Helper()
	slices.Sort(nodes)
	var pods map[string]*corev1.Pod
	cluster.Await(f, fmt.Sprintf("spot is on %q", nodes), time.Minute, func(ctx context.Context) error {
		var err error
		if pods, err = podsOf(ctx, f.Cluster, "spot"); err != nil {
			return err
		}
		var has []string
		for node, pod := range pods {
			if !ready(pod) {
				node += " (not ready)"
			}
			has = append(has, node)
		}
		slices.Sort(has)
		if !slices.Equal(has, nodes) {
			return fmt.Errorf("it is on %q", has)
		}
		return nil
	})
	return pods
}

func (f *fleet) names() (first, second, third string) {
	return f.Nodes[0].Name, f.Nodes[1].Name, f.Nodes[2].Name
}

func (f *fleet) followsLabels() {
	first, second, third := f.names()
	f.Apply(set("spot", "1", ""))
	spot := strings.Replace(set("spot", "1", ""), "      containers:", "      nodeSelector: {pool: a}\n      containers:", 1)
	f.spotOn(first, second, third)
	f.MustKubectl("label", "node", first, second, "pool=a")
	f.says("plan", f.plan(spot), `1 excluded by nodeSelector pool=a`, `^`+third+` +delete +1 `)
	f.Apply(spot)
	before := f.settleOn(first, second)
	f.awaitSays("why names the selector", `^default/spot: 2 of 3 nodes; 1 excluded by nodeSelector pool=a$`, func() cluster.Result { return f.why("spot") })
	f.says("why", f.why("spot").Stdout, `^`+third+` +out +nodeSelector wants pool=a, the node has no label pool$`)
	f.MustKubectl("label", "node", third, "pool=b")
	f.says("why", f.why("spot").Stdout, `^`+third+` +out +nodeSelector wants pool=a, the node has pool=b$`)
	f.MustKubectl("label", "node", third, "pool=a", "--overwrite")
	after := f.spotOn(first, second, third)
	if same := kept(before, after); len(same) != 2 {
		f.Errorf("a third node changed the pods of others: only those of %q are as they were", same)
	}
	f.MustKubectl("label", "node", second, "pool-")
	f.spotOn(first, third)
	f.MustKubectl("label", "node", second, "pool=a")
	f.spotOn(first, second, third)
}

// settleOn is spotOn after an update.
func (f *fleet) settleOn(nodes ...string) map[string]*corev1.Pod {
	f.Helper()
	f.MustKubectl("rollout", "status", "ds/spot", "--timeout=60s")
	return f.spotOn(nodes...)
}

// NoSchedule keeps what runs and lets nothing come; NoExecute sends it away.
func (f *fleet) followsTaints() {
	first, second, third := f.names()
	before := f.spotOn(first, second, third)
	f.MustKubectl("taint", "node", second, "dedicated=gpu:NoSchedule")
	f.awaitSays("the pod is misscheduled", `^2 1$`, func() cluster.Result {
		return f.Kubectl("get", "ds", "spot", "-o", "jsonpath={.status.desiredNumberScheduled} {.status.numberMisscheduled}")
	})
	f.says("why", f.why("spot").Stdout, `^default/spot: 2 of 3 nodes; 1 excluded by taint dedicated=gpu:NoSchedule$`,
		`^`+second+` +out +taint dedicated=gpu:NoSchedule is not tolerated; pod `+before[second].Name+` was there before and stays$`)
	if same := kept(before, f.spotOn(first, second, third)); len(same) != 3 {
		f.Errorf("NoSchedule: only the pods of %q stayed", same)
	}
	f.MustKubectl("delete", "pod", before[second].Name)
	f.spotOn(first, third)
	f.MustKubectl("taint", "node", second, "dedicated-")
	before = f.spotOn(first, second, third)

	f.MustKubectl("taint", "node", third, "maintenance=yes:NoExecute")
	f.spotOn(first, second)
	f.says("why", f.why("spot").Stdout, `^`+third+` +out +taint maintenance=yes:NoExecute is not tolerated$`)
	f.MustKubectl("taint", "node", third, "maintenance-")
	after := f.spotOn(first, second, third)
	if same := kept(before, after); len(same) != 2 {
		f.Errorf("NoExecute on one node: only the pods of %q stayed", same)
	}
}

// A cordoned node keeps its daemons and gets new ones.
func (f *fleet) ignoresCordons() {
	first, second, third := f.names()
	before := f.spotOn(first, second, third)
	f.MustKubectl("cordon", first)
	f.awaitSays("the node is tainted", `unschedulable`, func() cluster.Result {
		return f.Kubectl("get", "node", first, "-o", "jsonpath={.spec.taints}")
	})
	f.MustKubectl("delete", "pod", before[first].Name)
	after := f.spotOn(first, second, third)
	if same := kept(before, after); len(same) != 2 {
		f.Errorf("only the pods of %q stayed", same)
	}
	f.says("why", f.why("spot").Stdout, `^default/spot: 3 of 3 nodes$`)
	f.MustKubectl("uncordon", first)
}

// A node whose agent dies is silent, and keeps its pod for the time being. With its Node the DaemonSet wants its
// pod no more, and with a new Node a new one.
func (f *fleet) followsNodes() {
	first, second, third := f.names()
	before := f.spotOn(first, second, third)
	node := f.Nodes[2]
	node.Agent.Kill()
	f.awaitSays("why says that the node is silent", `^default/spot: 2 of 3 nodes; 1 excluded while the node is silent$`, func() cluster.Result { return f.why("spot") })
	f.says("why", f.why("spot").Stdout, `^`+third+` +out .*the node is silent: the last sign of life of its agent is \d+s old; pod `+before[third].Name+` was there before and stays$`)

	f.MustKubectl("delete", "node", third)
	f.awaitSays("the DaemonSet wants one pod less", `^spot +2 +2 +2 +2 +2 `, func() cluster.Result { return f.Kubectl("get", "ds", "spot", "--no-headers") })
	node.StartAgent(f.JoinToken())
	f.AwaitReady(node)
	f.awaitSays("a new Node has no labels of the old one", `out +nodeSelector wants pool=a, the node has no label pool`, func() cluster.Result { return f.why("spot") })
	f.MustKubectl("label", "node", third, "pool=a")
	after := f.spotOn(first, second, third)
	if same := kept(before, after); len(same) != 2 {
		f.Errorf("the pods of %q are as they were, want those of the other two", same)
	}
	sandboxes(f.T, f.Cluster, node) // what ran there before is gone
}
