package daemonset

import (
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/everynode/everynode/internal/decide/placement"
)

func roomFor(t *testing.T, cpu string) (*Room, *placement.Demand) {
	t.Helper()
	r := NewRoom()
	rl := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourcePods: resource.MustParse("10")}
	r.hold(func() {
		r.ledger.SetNode(placement.NodeOf(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: corev1.NodeStatus{Allocatable: rl, Capacity: rl}}))
	})
	return r, placement.DemandOf(&corev1.PodSpec{Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}}}}})
}

// The controller and the scheduler ask for the last room at the same moment: one of them gets it.
func TestRoomIsPromisedOnce(t *testing.T) {
	for range 200 {
		r, d := roomFor(t, "1")
		var got atomic.Int32
		var both sync.WaitGroup
		both.Go(func() {
			if len(r.Reserve("ops/bare", "n", d)) == 0 {
				got.Add(1)
			}
		})
		both.Go(func() {
			r.hold(func() {
				if r.ledger.Fits("n", d) {
					r.ledger.Reserve("ops/daemon", "n", d)
					got.Add(1)
				}
			})
		})
		both.Wait()
		if got.Load() != 1 {
			t.Fatalf("%d got the room of one", got.Load())
		}
	}
}

func TestRoomTellsWhenItIsFreed(t *testing.T) {
	r, d := roomFor(t, "1")
	told := 0
	r.OnFreed(func() { told++ })
	if why := r.Reserve("ops/a", "n", d); len(why) > 0 {
		t.Fatal(why)
	}
	if why := r.Reserve("ops/b", "n", d); len(why) != 1 || why[0].Rule != placement.Resource {
		t.Errorf("no room: %v", why)
	}
	if told != 0 {
		t.Errorf("told %d times before anything was freed", told)
	}
	r.Release("ops/a")
	if told != 1 {
		t.Errorf("told %d times, want once", told)
	}
	r.Release("ops/a")
	if told != 1 {
		t.Error("told of nothing")
	}
	if why := r.Reserve("ops/b", "n", d); len(why) > 0 {
		t.Errorf("the freed room: %v", why)
	}
	if why := r.Reserve("ops/b", "n", d); len(why) > 0 {
		t.Errorf("a second attempt finds its own promise in the way: %v", why)
	}
	if _, pods := r.Outstanding("n", func(string) bool { return false }); pods != 1 {
		t.Errorf("%d promises, want 1", pods)
	}
	if why := r.Reserve("ops/c", "unheard-of", d); len(why) > 0 {
		t.Errorf("a node that the controller has not seen: %v", why)
	}
}
