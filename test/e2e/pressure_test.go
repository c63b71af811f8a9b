//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/everynode/everynode/test/e2e/cluster"
)

// awaitPressure waits until a node has or has not a condition of pressure, and the taint of it.
func awaitPressure(t *testing.T, c *cluster.Cluster, n *cluster.Node, kind corev1.NodeConditionType, want corev1.ConditionStatus) {
	t.Helper()
	taint := map[corev1.NodeConditionType]string{
		corev1.NodeDiskPressure: corev1.TaintNodeDiskPressure, corev1.NodeMemoryPressure: corev1.TaintNodeMemoryPressure, corev1.NodePIDPressure: corev1.TaintNodePIDPressure,
	}[kind]
	cluster.Await(t, fmt.Sprintf("%s is %s", kind, want), 90*time.Second, func(ctx context.Context) error {
		node, err := c.Client().CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		tainted := slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == taint && t.Effect == corev1.TaintEffectNoSchedule })
		for _, condition := range node.Status.Conditions {
			if condition.Type == kind && condition.Status == want && tainted == (want == corev1.ConditionTrue) {
				return nil
			}
		}
		return fmt.Errorf("conditions %+v, taints %+v", node.Status.Conditions, node.Spec.Taints)
	})
}

// hasEnded is for awaitPod.
func hasEnded(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed }

// wasEvicted checks how a pod says that it had to go for the sake of others.
func wasEvicted(t *testing.T, pod *corev1.Pod, message string) {
	t.Helper()
	if pod.Status.Reason != "Evicted" || !strings.HasPrefix(pod.Status.Message, message) {
		t.Errorf("pod %s: %s: %s", pod.Name, pod.Status.Reason, pod.Status.Message)
	}
	if !slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.DisruptionTarget }) {
		t.Errorf("pod %s: conditions %+v", pod.Name, pod.Status.Conditions)
	}
}

// spared checks that pods run on as they did.
func spared(t *testing.T, c *cluster.Cluster, before ...*corev1.Pod) {
	t.Helper()
	for _, was := range before {
		is := awaitPod(t, c, was.Name, 10*time.Second, ready)
		if is.UID != was.UID || containerID(is) != containerID(was) || restarts(is) != 0 {
			t.Errorf("pod %s with container %s became one with %s, %d restarts", was.Name, containerID(was), containerID(is), restarts(is))
		}
	}
}

// requesting is a pod that asks for resources.
func requesting(manifest, requests string) string {
	return strings.Replace(manifest, "    args:", "    resources: {requests: {"+requests+"}}\n    args:", 1)
}

// When pods have too little memory left, the node says so, is tainted, takes no more pods that ask
// for none, and has the least important of those leave that use more than they asked for: not the
// one that uses most. What is short is what pods may use together; the real machine is not.
func TestMemoryPressure(t *testing.T) {
	c := cluster.New(t, programs(t))
	n := c.AddMachine()
	n.Configure(fmt.Sprintf(`
systemReserved: {memory: %dKi}
evictionHard: {memory.available: 350Mi}
evictionPressureTransitionPeriod: 15s
`, memTotal(t, n)-900<<10))
	n.StartContainerd()
	n.StartAgent(c.JoinToken())
	c.AwaitReady()
	c.MustKubectl("create", "priorityclass", "vital", "--value=1000")
	c.Apply(requesting(onNode(n.Name, "asked-for", "", "hold", "250"), "memory: 350Mi"))
	c.Apply(onNode(n.Name, "vital", "priorityClassName: vital", "hold", "200"))
	asked, vital := awaitPod(t, c, "asked-for", time.Minute, ready), awaitPod(t, c, "vital", time.Minute, ready)

	c.Apply(onNode(n.Name, "plain", "", "hold", "150"))
	awaitPressure(t, c, n, corev1.NodeMemoryPressure, corev1.ConditionTrue)
	wasEvicted(t, awaitPod(t, c, "plain", time.Minute, hasEnded), "The node was low on resource: memory. Threshold quantity: 350Mi, available: ")
	awaitEvent(t, c, "EvictionThresholdMet", "Attempting to reclaim memory")
	c.Apply(onNode(n.Name, "late", "", "sleep"))
	if late := awaitPod(t, c, "late", 30*time.Second, hasEnded); late.Status.Reason != "Evicted" || late.Status.Message != "Pod was rejected: The node had condition: [MemoryPressure]. " {
		t.Errorf("%s: %s", late.Status.Reason, late.Status.Message)
	}
	c.Apply(requesting(onNode(n.Name, "small", "", "sleep"), "memory: 10Mi"))
	awaitPod(t, c, "small", 30*time.Second, ready)
	awaitPressure(t, c, n, corev1.NodeMemoryPressure, corev1.ConditionFalse)
	spared(t, c, asked, vital)
}

// memTotal is the memory of a machine in KiB.
func memTotal(t *testing.T, n *cluster.Node) int {
	t.Helper()
	kib, err := strconv.Atoi(strings.TrimSpace(n.Must("sed", "-n", "s/^MemTotal: *\\([0-9]*\\) kB/\\1/p", "/proc/meminfo")))
	if err != nil {
		t.Fatal(err)
	}
	return kib
}

// When process ids run short, the one with the most of the least important pods has to leave.
func TestPIDPressure(t *testing.T) {
	c := cluster.New(t, programs(t))
	n := c.AddMachine()
	var running, limit, threads int
	if _, err := fmt.Sscanf(n.Must("sh", "-c", "sed 's,.*/\\([0-9]*\\) .*,\\1,' /proc/loadavg; cat /proc/sys/kernel/pid_max /proc/sys/kernel/threads-max"), "%d\n%d\n%d", &running, &limit, &threads); err != nil {
		t.Fatal(err)
	}
	n.Configure(fmt.Sprintf(`
evictionHard: {pid.available: "%d"}
evictionPressureTransitionPeriod: 5s
`, min(limit, threads)-running-3000))
	n.StartContainerd()
	n.StartAgent(c.JoinToken())
	c.AwaitReady()
	c.MustKubectl("create", "priorityclass", "vital", "--value=1000")
	c.Apply(onNode(n.Name, "vital", "priorityClassName: vital", "threads", "2400"))
	c.Apply(onNode(n.Name, "modest", "", "sleep"))
	vital, modest := awaitPod(t, c, "vital", time.Minute, ready), awaitPod(t, c, "modest", time.Minute, ready)

	c.Apply(onNode(n.Name, "crowd", "", "threads", "1200"))
	awaitPressure(t, c, n, corev1.NodePIDPressure, corev1.ConditionTrue)
	wasEvicted(t, awaitPod(t, c, "crowd", time.Minute, hasEnded), "The node was low on resource: pids. Threshold quantity: ")
	awaitPressure(t, c, n, corev1.NodePIDPressure, corev1.ConditionFalse)
	spared(t, c, vital, modest)
}

// A node whose disk is full reports it, is tainted, and has the greediest pod leave.
func TestDiskPressure(t *testing.T) {
	c := cluster.New(t, programs(t))
	n := c.AddMachine()
	// The node's files are on a small disk, the runtime's are not.
	small := filepath.Join(cluster.DataDir, "small")
	n.Must("mkdir", small)
	n.Must("mount", "-t", "tmpfs", "-o", "size=64m,mode=755", "tmpfs", small)
	n.Must("mkdir", filepath.Join(small, "images"))
	n.Must("cp", filepath.Join(cluster.DataDir, "images", "app.tar"), filepath.Join(small, "images"))
	n.Configure(`
evictionHard: {nodefs.available: 30Mi}
evictionPressureTransitionPeriod: 5s
`, "--data-dir", small)
	n.StartContainerd()
	n.StartAgent(c.JoinToken())
	c.AwaitReady()
	c.Apply(onNode(n.Name, "modest", "", "sleep"))
	awaitPod(t, c, "modest", 60*time.Second, ready)
	c.Apply(onNode(n.Name, "hoarder", `volumes: [{name: v, emptyDir: {}}]`, "fill", "/tmp/v/file", "30") +
		"    volumeMounts: [{name: v, mountPath: /tmp/v}]\n")
	awaitPressure(t, c, n, corev1.NodeDiskPressure, corev1.ConditionTrue)
	pod := awaitPod(t, c, "hoarder", 90*time.Second, func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	wasEvicted(t, pod, "The node was low on resource: ephemeral-storage. Threshold quantity: 30Mi, available: ")
	awaitEvent(t, c, "EvictionThresholdMet", "Attempting to reclaim ephemeral-storage")
	awaitPressure(t, c, n, corev1.NodeDiskPressure, corev1.ConditionFalse)
	awaitPod(t, c, "modest", 10*time.Second, ready)
}
