//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/everynode/everynode/test/e2e/cluster"
)

// onNode is a bare pod of testapp, bound to a node.
func onNode(node, name, more string, args ...string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: default}
spec:
  nodeName: %s
  terminationGracePeriodSeconds: 2
  %s
  containers:
  - name: app
    image: "%s"
    args: ["%s"]
`, name, node, more, appImage, strings.Join(args, `", "`))
}

func awaitPod(t *testing.T, c *cluster.Cluster, name string, timeout time.Duration, is func(*corev1.Pod) bool) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	cluster.Await(t, "pod "+name+" is as it should be", timeout, func(ctx context.Context) error {
		var err error
		if pod, err = c.Client().CoreV1().Pods("default").Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		if !is(pod) {
			return fmt.Errorf("it is %s %s %s: %+v", pod.Status.Phase, pod.Status.Reason, pod.Status.Message, pod.Status.ContainerStatuses)
		}
		return nil
	})
	return pod
}

func awaitEvent(t *testing.T, c *cluster.Cluster, reason, text string) {
	t.Helper()
	cluster.Await(t, "an event "+reason, 30*time.Second, func(ctx context.Context) error {
		list, err := c.Client().CoreV1().Events("").List(ctx, metav1.ListOptions{FieldSelector: "reason=" + reason})
		if err != nil {
			return err
		}
		for _, e := range list.Items {
			if strings.Contains(e.Message, text) {
				return nil
			}
		}
		return fmt.Errorf("%d events, none with %q", len(list.Items), text)
	})
}

// A node looks after itself: it rotates logs, removes images, evicts pods over their limits, keeps
// what is reserved, and says of pods that it cannot take why.
func TestUpkeep(t *testing.T) {
	c := cluster.New(t, programs(t))
	n := c.AddMachine()
	n.Configure(`
containerLogMaxSize: 100Ki
containerLogMaxFiles: 4
containerLogMonitorInterval: 1s
imageGCHighThresholdPercent: 2
imageGCLowThresholdPercent: 1
imageMinimumGCAge: 2s
systemReserved: {cpu: 100m, memory: 300Mi}
`)
	n.StartContainerd()
	// An image that was on the machine before, and that nothing uses.
	archive := filepath.Join(cluster.DataDir, "images", "node-exporter.tar")
	n.Ctr("images", "import", archive)
	if err := os.Remove(n.Path(archive)); err != nil {
		t.Fatal(err)
	}
	n.StartAgent(c.JoinToken())
	c.AwaitReady()

	t.Run("images", func(t *testing.T) {
		cluster.Await(t, "the unused image is gone", 60*time.Second, func(context.Context) error {
			if list := n.Ctr("images", "ls", "-q"); strings.Contains(list, "node-exporter") || !strings.Contains(list, appImage) {
				return fmt.Errorf("images: %s", list)
			}
			return nil
		})
		awaitEvent(t, c, "FreeDiskSpaceFailed", "Insufficient free disk space on the node's image filesystem")
		for _, name := range []string{appImage, "monitoring-agent:v1", "pause:1"} {
			if list := n.Ctr("images", "ls", "-q"); !strings.Contains(list, name) {
				t.Errorf("%s, which came with the machine, is gone; there are: %s", name, list)
			}
		}
	})

	t.Run("reservations", func(t *testing.T) {
		node, err := c.Client().CoreV1().Nodes().Get(t.Context(), n.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		left := node.Status.Capacity.Memory().DeepCopy()
		left.Sub(resource.MustParse("400Mi")) // 100Mi of it for eviction
		if got := node.Status.Allocatable.Memory(); got.Cmp(left) != 0 {
			t.Errorf("allocatable memory %s, want %s", got, left.String())
		}
		if got, all := node.Status.Allocatable.Cpu().MilliValue(), node.Status.Capacity.Cpu().MilliValue(); got != all-100 {
			t.Errorf("allocatable cpu %dm of %dm", got, all)
		}
	})

	t.Run("admission", func(t *testing.T) {
		c.Apply(strings.Replace(onNode(n.Name, "greedy", "", "sleep"), "    args:", "    resources: {requests: {cpu: 1k}}\n    args:", 1))
		pod := awaitPod(t, c, "greedy", 30*time.Second, func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
		if pod.Status.Reason != "OutOfcpu" || !strings.HasPrefix(pod.Status.Message, "Pod was rejected: Node didn't have enough resource: cpu, requested: 1000000, used: ") {
			t.Errorf("%s: %s", pod.Status.Reason, pod.Status.Message)
		}
		c.Apply(onNode(n.Name, "elsewhere", "nodeSelector: {disk: ssd}", "sleep"))
		pod = awaitPod(t, c, "elsewhere", 30*time.Second, func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
		if pod.Status.Reason != "NodeAffinity" {
			t.Errorf("%s: %s", pod.Status.Reason, pod.Status.Message)
		}
		// A label that has only just been put on: the pod may come here before it.
		c.MustKubectl("label", "node", n.Name, "disk=ssd")
		c.Apply(onNode(n.Name, "here", "nodeSelector: {disk: ssd}", "sleep"))
		awaitPod(t, c, "here", 30*time.Second, ready)
	})

	t.Run("logs", func(t *testing.T) { rotation(t, c, n) })

	t.Run("limit", func(t *testing.T) {
		c.Apply(onNode(n.Name, "hoarder", `volumes: [{name: v, emptyDir: {sizeLimit: 5Mi}}]`, "fill", "/tmp/v/file", "10") +
			"    volumeMounts: [{name: v, mountPath: /tmp/v}]\n")
		pod := awaitPod(t, c, "hoarder", 2*time.Minute, func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
		if pod.Status.Reason != "Evicted" || pod.Status.Message != `Usage of EmptyDir volume "v" exceeds the limit "5Mi". ` {
			t.Errorf("%s: %s", pod.Status.Reason, pod.Status.Message)
		}
		awaitEvent(t, c, "Evicted", `Usage of EmptyDir volume "v" exceeds the limit "5Mi"`)
	})
}

// rotation follows a log over several rotations.
func rotation(t *testing.T, c *cluster.Cluster, n *cluster.Node) {
	const count = 6000 // 60 bursts, 12 s, 540 KiB and as much again for the times: more rotations than files are kept
	c.Apply(onNode(n.Name, "talker", "", "lines", fmt.Sprint(count), "3"))
	awaitPod(t, c, "talker", 30*time.Second, func(p *corev1.Pod) bool {
		return len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].State.Waiting == nil
	})
	followed := strings.Split(strings.TrimSpace(c.MustKubectl("logs", "-f", "talker")), "\n")
	for i, line := range followed {
		if !strings.HasPrefix(line, fmt.Sprintf("line %06d ", i)) {
			t.Fatalf("line %d of those followed is %q", i, line)
		}
	}
	if len(followed) != count {
		t.Fatalf("%d of %d lines were followed", len(followed), count)
	}
	awaitPod(t, c, "talker", 30*time.Second, func(p *corev1.Pod) bool { return p.Status.ContainerStatuses[0].RestartCount > 0 })
	if r := c.Kubectl("logs", "--previous", "--since=1h", "--timestamps", "talker"); r.Code != 0 {
		t.Errorf("the log of the container that has ended: code %d: %s", r.Code, r.Stderr)
	}
	dirs, err := filepath.Glob(n.Path("/var/log/pods/default_talker_*/app"))
	if err != nil || len(dirs) != 1 {
		t.Fatalf("log folders %v, %v", dirs, err)
	}
	entries, err := os.ReadDir(dirs[0])
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "0.log") {
			names = append(names, e.Name())
		}
	}
	if len(names) != 4 || !slices.Contains(names, "0.log") || !strings.HasSuffix(names[1], ".gz") || !strings.HasSuffix(names[2], ".gz") || strings.HasSuffix(names[3], ".gz") {
		t.Errorf("the log's files: %v", names)
	}
}
