package nodehealth

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// The cost of an event must not depend on the number of nodes: compare the sizes.
var sizes = []int{1_000, 20_000, 100_000}

// fleetOf makes a Set with that many nodes, all of them well.
func fleetOf(b *testing.B, nodes int) (*world, []string) {
	b.Helper()
	w, names := newWorld(Options{}), make([]string, nodes)
	for i := range names {
		names[i] = fmt.Sprintf("node-%06d", i)
		n := w.changeNode(names[i], func(n *corev1.Node) {
			n.Spec.Taints = nil
			setCondition(corev1.NodeReady, corev1.ConditionTrue, "Kubelet", w.now)(n)
		})
		w.set.SetNode(n, w.now)
		w.renew(names[i])
	}
	if a := w.set.Next(w.now, 1000); a.Len() > 0 {
		b.Fatalf("%d actions for a fleet that is well", a.Len())
	}
	return w, names
}

// BenchmarkRenewal is a lease that is renewed in time, its share of looking at deadlines included.
func BenchmarkRenewal(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w, names := fleetOf(b, n)
			step := renewEvery / time.Duration(n)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				w.now = w.now.Add(step)
				w.set.Renewed(names[i%n], w.now, w.now)
				if w.now.Before(w.set.promised) {
					continue
				}
				if a := w.set.Next(w.now, 10); a.Len() > 0 {
					b.Fatalf("%+v", a)
				}
			}
		})
	}
}

// BenchmarkCondition is a node under disk pressure, and relieved: two changes and their writes.
func BenchmarkCondition(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w, names := fleetOf(b, n)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				name := names[i%len(names)]
				for _, status := range []corev1.ConditionStatus{corev1.ConditionTrue, corev1.ConditionFalse} {
					w.report(name, setCondition(corev1.NodeDiskPressure, status, "Kubelet", w.now))
					a := w.set.Next(w.now, 10)
					if len(a.Taintings) != 1 {
						b.Fatalf("%+v", a)
					}
					w.perform(&a)
				}
				w.set.Next(w.now, 10)
				w.log = nil
			}
		})
	}
}

// BenchmarkMemory reports what the machine holds for a node that is well, beside the node in the informer's cache.
func BenchmarkMemory(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			inUse := func() float64 {
				var m runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&m)
				return float64(m.HeapAlloc)
			}
			w, _ := fleetOf(b, n)
			with := inUse()
			w.set = nil
			b.ReportMetric((with-inUse())/float64(n), "B/node")
			runtime.KeepAlive(w)
		})
	}
}
