//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/yaml"

	"github.com/everynode/everynode/test/e2e/cluster"
)

// From the server's answer to a new DaemonSet until it is ready on one node, beside what the
// container runtime alone needs for the same pod, measured in turns. The aim: a ratio of 1.5.
func BenchmarkReady(b *testing.B) {
	c := cluster.New(b, programs(b))
	n := c.AddNode()
	c.AwaitReady()
	measureReady(b, c, "warm") // the first pod of a node also loads what the others find in memory
	var floors, readies []time.Duration
	b.ResetTimer()
	for i := range b.N {
		floor, _, err := n.Floor(context.Background(), cluster.FloorPods{Name: fmt.Sprintf("floor-%d", i), Image: appImage, Args: []string{"sleep"}, Count: 1, AtOnce: 1})
		if err != nil {
			b.Fatal(err)
		}
		floors = append(floors, floor)
		readies = append(readies, measureReady(b, c, fmt.Sprintf("ready-%d", i)))
	}
	b.StopTimer()
	floor, ready := median(floors), median(readies)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(floor.Microseconds())/1000, "ms-floor")
	b.ReportMetric(float64(ready.Microseconds())/1000, "ms-ready")
	b.ReportMetric(float64(ready)/float64(floor), "ratio")
}

// measureReady makes a DaemonSet, waits until it is ready, and deletes it.
func measureReady(b *testing.B, c *cluster.Cluster, name string) time.Duration {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	sets := c.Client().AppsV1().DaemonSets("default")
	ds := &appsv1.DaemonSet{}
	if err := yaml.Unmarshal([]byte(daemonSet(name, "sleep")), ds); err != nil {
		b.Fatal(err)
	}
	events, err := sets.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		b.Fatal(err)
	}
	defer events.Stop()
	if _, err := sets.Create(ctx, ds, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	answered := time.Now()
	var took time.Duration
	for event := range events.ResultChan() {
		now, ok := event.Object.(*appsv1.DaemonSet)
		if event.Type == watch.Error || !ok {
			b.Fatalf("watch: %v", event.Object)
		}
		if now.Status.NumberReady == 1 {
			took = time.Since(answered)
			break
		}
	}
	if took == 0 {
		b.Fatalf("%s is not ready in time:\n%s%s", name, c.Kubectl("describe", "ds,pods,nodes").Stdout, c.Kubectl("get", "events", "-A").Stdout)
	}
	if err := sets.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		b.Fatal(err)
	}
	cluster.Await(b, "the pod is gone", time.Minute, func(ctx context.Context) error {
		pods, err := podsOf(ctx, c, name)
		if err == nil && len(pods) > 0 {
			err = fmt.Errorf("%d pods", len(pods))
		}
		return err
	})
	return took
}

// From the start of the server's process until /readyz, on data that is there. The aim: 3 s.
func BenchmarkServerReady(b *testing.B) {
	c := cluster.New(b, programs(b))
	var took []time.Duration
	b.ResetTimer()
	for range b.N {
		if _, err := c.Server.Stop(6 * time.Second); err != nil {
			b.Fatal(err)
		}
		c.StartServer()
		took = append(took, c.AwaitServer())
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(median(took).Milliseconds()), "ms-ready")
}

func resident(pid int) (kib int, err error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			return strconv.Atoi(strings.Fields(rest)[0])
		}
	}
	return 0, fmt.Errorf("process %d: no VmRSS", pid)
}

func median(all []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}
