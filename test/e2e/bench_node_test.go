//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
	"k8s.io/utils/ptr"

	"github.com/everynode/everynode/test/e2e/cluster"
)

// subjects are what runs the pods of a node: everynode's agent, and the stock kubelet beside it.
var subjects = map[string]func(testing.TB, *cluster.Cluster) *cluster.Node{
	"agent": func(_ testing.TB, c *cluster.Cluster) *cluster.Node { return c.AddNode() },
	"kubelet": func(t testing.TB, c *cluster.Cluster) *cluster.Node {
		kubelet, err := program("KUBELET_BIN", "../../bin/kubelet")
		if err != nil {
			t.Fatal(err)
		}
		return c.AddKubeletNode(kubelet)
	},
}

// Pods without probes, one and fifty at once: from their binding until all are reported Running, and
// from their deletion until all are gone, beside what the container runtime alone needs for as many.
// Runtime, agent and kubelet take turns, the latter two each on a node of its own. The agent's aim:
// ratios of 1.3. CPU is that of the node and the server until both are at rest again, so what is put
// off counts too.
func BenchmarkPods(b *testing.B) {
	for _, count := range []int{1, 50} {
		b.Run(strconv.Itoa(count), func(b *testing.B) {
			c := cluster.New(b, programs(b))
			nodes := map[string]*cluster.Node{}
			for name, add := range subjects {
				nodes[name] = add(b, c)
			}
			c.AwaitReady()
			for name, n := range nodes {
				measurePods(b, c, n, "warm-"+name, 1)
			}
			start, stop := map[string][]spent{}, map[string][]spent{}
			turns := []string{"floor", "agent", "kubelet"}
			b.ResetTimer()
			for i := range b.N {
				for turn := range turns { // nobody always comes first
					name := turns[(i+turn)%len(turns)]
					var up, down spent
					if pods := fmt.Sprintf("%s-%d", name, i); name == "floor" {
						up, down = measureFloor(b, c, nodes["agent"], pods, count)
					} else {
						up, down = measurePods(b, c, nodes[name], pods, count)
					}
					b.Logf("%s: %v, %v", name, up, down)
					start[name], stop[name] = append(start[name], up), append(stop[name], down)
				}
			}
			b.StopTimer()
			b.ReportMetric(0, "ns/op")
			for what, all := range map[string]map[string][]spent{"start": start, "stop": stop} {
				floor := medianOf(all["floor"])
				for name := range all {
					m := medianOf(all[name])
					b.ReportMetric(float64(m.took.Milliseconds()), "ms-"+name+"-"+what)
					b.ReportMetric(float64(m.cpu.Milliseconds()), "cpu-ms-"+name+"-"+what)
					b.ReportMetric(float64(m.took)/float64(floor.took), "ratio-"+name+"-"+what)
				}
			}
		})
	}
}

// spent is what something took.
type spent struct {
	took time.Duration
	// cpu until all was at rest again; of it until took, and what server and agent have of it.
	cpu, until, server, agent time.Duration
}

func (s spent) String() string {
	ms := func(d time.Duration) int64 { return d.Milliseconds() }
	return fmt.Sprintf("%d ms, CPU %d ms (%d until then; server %d, agent %d)", ms(s.took), ms(s.cpu), ms(s.until), ms(s.server), ms(s.agent))
}

// medianOf are the medians of time and CPU, each for itself.
func medianOf(all []spent) (m spent) {
	var took, cpu []time.Duration
	for _, s := range all {
		took, cpu = append(took, s.took), append(cpu, s.cpu)
	}
	m.took, m.cpu = median(took), median(cpu)
	return m
}

// meter reads the CPU time of a node's processes and of the server.
type meter struct {
	b *testing.B
	c *cluster.Cluster
	n *cluster.Node
}

func (m meter) read() (s spent) {
	m.b.Helper()
	var errs [3]error
	s.cpu, errs[0] = m.n.CPUTime()
	s.server, errs[1] = cluster.CPUTime(m.c.Server.PID())
	s.agent, errs[2] = cluster.CPUTime(m.n.Agent.PID())
	if err := errors.Join(errs[:]...); err != nil {
		m.b.Fatal(err)
	}
	s.cpu += s.server
	return s
}

// rest waits until the node and the server have next to nothing to do.
func (m meter) rest() spent {
	m.b.Helper()
	const look, most = 500 * time.Millisecond, 30 * time.Millisecond
	before := m.read()
	for range 60 {
		time.Sleep(look)
		now := m.read()
		if now.cpu-before.cpu <= most {
			return now
		}
		before = now
	}
	m.b.Fatal("the node or the server does not come to rest")
	return spent{}
}

// of measures f, which returns how long it took.
func (m meter) of(f func() time.Duration) spent {
	m.b.Helper()
	before := m.rest()
	took := f()
	until, after := m.read(), m.rest()
	return spent{took: took, cpu: after.cpu - before.cpu, until: until.cpu - before.cpu, server: after.server - before.server, agent: after.agent - before.agent}
}

// measureFloor is measurePods with the container runtime alone, 15 pods at once as the agent has it.
func measureFloor(b *testing.B, c *cluster.Cluster, n *cluster.Node, name string, count int) (start, stop spent) {
	b.Helper()
	ctx, m := context.Background(), meter{b, c, n}
	f, err := n.NewFloor(ctx, cluster.FloorPods{Name: name, Image: appImage, Args: []string{"sleep"}, Count: count, AtOnce: 15})
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close(ctx)
	timed := func(f func(context.Context) (time.Duration, error)) spent {
		return m.of(func() time.Duration {
			took, err := f(ctx)
			if err != nil {
				b.Fatal(err)
			}
			return took
		})
	}
	return timed(f.Start), timed(f.Stop)
}

// measurePods makes pods that are bound to a node, waits until all run, and deletes them.
func measurePods(b *testing.B, c *cluster.Cluster, n *cluster.Node, name string, count int) (start, stop spent) {
	b.Helper()
	m := meter{b, c, n}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	pods := c.Client().CoreV1().Pods("default")
	list, err := pods.List(ctx, metav1.ListOptions{LabelSelector: "bench=" + name})
	if err != nil {
		b.Fatal(err)
	}
	// One watch may be broken off: this one is taken up again.
	events, err := watchtools.NewRetryWatcherWithContext(ctx, list.ResourceVersion, &cache.ListWatch{
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.LabelSelector = "bench=" + name
			return pods.Watch(ctx, o)
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	defer events.Stop()
	each := func(f func(ctx context.Context, name string) error) time.Time {
		b.Helper()
		began := time.Now()
		group, ctx := errgroup.WithContext(ctx)
		for i := range count {
			group.Go(func() error { return f(ctx, fmt.Sprintf("%s-%d", name, i)) })
		}
		if err := group.Wait(); err != nil {
			b.Fatal(err)
		}
		return began
	}
	await := func(what string, began time.Time, counts func(watch.Event, *corev1.Pod) bool) time.Duration {
		b.Helper()
		seen := map[string]bool{}
		for event := range events.ResultChan() {
			pod, ok := event.Object.(*corev1.Pod)
			if !ok {
				b.Fatalf("watch: %v", event.Object)
			}
			if seen[pod.Name] = seen[pod.Name] || counts(event, pod); seen[pod.Name] {
				done := 0
				for _, is := range seen {
					if is {
						done++
					}
				}
				if done == count {
					return time.Since(began)
				}
			}
		}
		b.Fatalf("%s: not all %d pods are %s in time:\n%s", name, count, what, c.Kubectl("describe", "pods").Stdout)
		return 0
	}
	start = m.of(func() time.Duration {
		began := each(func(ctx context.Context, name string) error {
			_, err := pods.Create(ctx, benchPod(n, name), metav1.CreateOptions{})
			return err
		})
		return await("Running", began, func(_ watch.Event, p *corev1.Pod) bool { return p.Status.Phase == corev1.PodRunning })
	})
	stop = m.of(func() time.Duration {
		began := each(func(ctx context.Context, name string) error { return pods.Delete(ctx, name, metav1.DeleteOptions{}) })
		return await("gone", began, func(e watch.Event, _ *corev1.Pod) bool { return e.Type == watch.Deleted })
	})
	return start, stop
}

func benchPod(n *cluster.Node, name string) *corev1.Pod {
	group := name[:strings.LastIndex(name, "-")]
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"bench": group}},
		Spec: corev1.PodSpec{
			NodeName: n.Name, TerminationGracePeriodSeconds: ptr.To[int64](2),
			Containers: []corev1.Container{{Name: "app", Image: appImage, Args: []string{"sleep"}}},
		},
	}
}

// An agent with 20 pods at rest, and the kubelet with as many at the same time: resident memory, and
// CPU in a minute. The agent's aims: 45 MiB, 0.5 s.
// And an idle server, etcd, controllers and scheduler inside. The aim: 220 MiB.
func BenchmarkIdle(b *testing.B) {
	c := cluster.New(b, programs(b))
	pids := map[string]int{}
	var nodes []*cluster.Node
	for name, add := range subjects {
		n := add(b, c)
		nodes, pids[name] = append(nodes, n), n.Agent.PID()
	}
	c.AwaitReady()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	for _, n := range nodes {
		for i := range 20 {
			if _, err := c.Client().CoreV1().Pods("default").Create(ctx, benchPod(n, fmt.Sprintf("%s-%d", n.Name, i)), metav1.CreateOptions{}); err != nil {
				b.Fatal(err)
			}
		}
	}
	cluster.Await(b, "20 pods of each node run", 2*time.Minute, func(ctx context.Context) error {
		list, err := c.Client().CoreV1().Pods("default").List(ctx, metav1.ListOptions{FieldSelector: "status.phase=Running"})
		if err == nil && len(list.Items) != 20*len(nodes) {
			err = fmt.Errorf("%d run", len(list.Items))
		}
		return err
	})
	time.Sleep(45 * time.Second) // it is about what is idle
	before := map[string]time.Duration{}
	for name, pid := range pids {
		used, err := cluster.CPUTime(pid)
		if err != nil {
			b.Fatal(err)
		}
		before[name] = used
	}
	time.Sleep(time.Minute)
	b.ReportMetric(0, "ns/op")
	for name, pid := range pids {
		used, err := cluster.CPUTime(pid)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric((used - before[name]).Seconds(), "cpu-s/min-"+name)
	}
	pids["server"] = c.Server.PID()
	for name, pid := range pids {
		kib, err := resident(pid)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(kib)/1024, "MiB-"+name)
	}
}
