package daemonset

import (
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/everynode/everynode/internal/decide/placement"
	corev1 "k8s.io/api/core/v1"
)

// The cost of an event must not depend on the number of nodes: compare the sizes. cpu-ns is the process's CPU
// time, garbage collection included, which a busy machine does not distort.
var sizes = []int{1_000, 20_000, 100_000}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func reportCPU(b *testing.B, since time.Duration, per int, unit string) {
	b.ReportMetric(float64((cpuTime()-since).Nanoseconds())/float64(b.N)/float64(per), unit)
}

func steady(b *testing.B, nodes int) *world {
	b.Helper()
	w := newWorld(newDaemonSet(rolling("1", "0")))
	for i := range nodes {
		w.setNode(testNode(fmt.Sprintf("node-%06d", i)))
	}
	w.deliverAllInOrder()
	for {
		a := w.next(500)
		for _, c := range a.Creates {
			w.performCreate(c, worked)
		}
		w.performStatus(a.Status, true)
		w.deliverAllInOrder()
		if a.Len() == 0 {
			break
		}
	}
	for name := range w.pods {
		w.changePod(name, ready(true, w.now))
	}
	w.deliverAllInOrder()
	w.now = w.now.Add(time.Minute)
	w.performStatus(w.next(500).Status, true)
	return w
}

// deliverAllInOrder is deliverAll without looking for the order.
func (w *world) deliverAllInOrder() {
	for _, e := range w.unseen {
		e.do(w.set)
	}
	w.unseen = w.unseen[:0]
}

func BenchmarkReadinessFlip(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := steady(b, n)
			var p *corev1.Pod
			for _, p = range w.pods {
				break
			}
			up, down := p.DeepCopy(), p.DeepCopy()
			ready(true, w.now)(up)
			ready(false, w.now)(down)
			b.ReportAllocs()
			b.ResetTimer()
			defer reportCPU(b, cpuTime(), 1, "cpu-ns/op")
			for i := range b.N {
				w.now = w.now.Add(time.Second)
				q := up
				if i%2 == 0 {
					q = down
				}
				w.ledger.SetPod(q)
				w.set.SetPod(PodOf(q))
				a := w.set.Next(w.now, 64)
				if a.Status == nil {
					b.Fatal("the flip is not in the status")
				}
				a.Status.Write(&w.ds.Status)
				w.set.SetSpec(w.ds, w.set.spec.revision)
				w.set.StatusDone(true, w.now)
			}
		})
	}
}

func BenchmarkNodeJoin(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := steady(b, n)
			node := testNode("joining")
			b.ReportAllocs()
			b.ResetTimer()
			defer reportCPU(b, cpuTime(), 1, "cpu-ns/op")
			for range b.N {
				w.now = w.now.Add(time.Second)
				f := placement.NodeOf(node)
				w.ledger.SetNode(f)
				w.set.SetNode(f)
				a := w.set.Next(w.now, 64)
				if len(a.Creates) != 1 || !a.Creates[0].Bound {
					b.Fatalf("want one bound create, got %+v", a.Creates)
				}
				_ = a.Creates[0].Template.Pod(a.Creates[0])
				// Back to before: this is counted too.
				w.set.StatusDone(true, w.now)
				w.set.CreateFailed(a.Creates[0].Name, Taken, w.now)
				w.set.slots["joining"].attempt = 0
				w.set.RemoveNode("joining")
				w.ledger.RemoveNode("joining")
				w.set.Next(w.now, 64)
				w.set.StatusDone(true, w.now)
			}
		})
	}
}

// BenchmarkFirstRollout reports the cost of one pod, from its node to its being seen ready.
func BenchmarkFirstRollout(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			nodes := make([]*placement.Node, n)
			for i := range nodes {
				nodes[i] = placement.NodeOf(testNode(fmt.Sprintf("node-%06d", i)))
			}
			b.ReportAllocs()
			b.ResetTimer()
			start := cpuTime()
			for range b.N {
				w := newWorld(newDaemonSet(rolling("1", "0")))
				for _, f := range nodes {
					w.ledger.SetNode(f)
					w.set.SetNode(f)
				}
				made := 0
				for made < n {
					a := w.set.Next(w.now, 64)
					for _, c := range a.Creates {
						p := c.Template.Pod(c)
						p.UID = "uid"
						w.set.Created(c.Name, p.UID)
						for _, as := range []func(*corev1.Pod){func(*corev1.Pod) {}, ready(true, w.now)} {
							q := *p
							as(&q)
							w.ledger.SetPod(&q)
							w.set.SetPod(PodOf(&q))
						}
						made++
					}
					w.performStatus(a.Status, true)
					w.now = w.now.Add(time.Millisecond)
				}
				w.set.Next(w.now, 64)
				if got := w.set.currentStatus().NumberReady; int(got) != n {
					b.Fatalf("ready %d of %d", got, n)
				}
			}
			reportCPU(b, start, n, "cpu-ns/pod")
		})
	}
}

// BenchmarkMemory reports what the machine and its share of the ledger hold for a node and its pod.
func BenchmarkMemory(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			inUse := func() float64 {
				var m runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&m)
				return float64(m.HeapAlloc)
			}
			for range b.N {
				before := inUse()
				w := steady(b, n)
				w.pods, w.nodes, w.unseen = nil, nil, nil // the cluster itself is not counted
				b.ReportMetric((inUse()-before)/float64(n), "B/node")
				runtime.KeepAlive(w)
			}
		})
	}
}
