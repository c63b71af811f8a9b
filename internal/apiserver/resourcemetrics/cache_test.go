package resourcemetrics

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// fleet are nodes that answer after a while, or never.
type fleet struct {
	mu         sync.Mutex
	asked      map[string]int
	took       time.Duration
	silent     map[string]bool
	busy, peak int
	Cache
}

func newFleet() *fleet {
	f := &fleet{asked: map[string]int{}, silent: map[string]bool{}, took: 300 * time.Millisecond}
	f.Ask = f.answer
	return f
}

func (f *fleet) answer(ctx context.Context, node *corev1.Node) (*Usage, error) {
	f.mu.Lock()
	f.asked[node.Name]++
	count, mute := f.asked[node.Name], f.silent[node.Name]
	f.busy++
	f.peak = max(f.peak, f.busy)
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.busy--
		f.mu.Unlock()
	}()
	if mute {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	time.Sleep(f.took)
	return &Usage{Node: Sample{At: time.Now(), NanoCores: uint64(count)}}, nil
}

func (f *fleet) total() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, count := range f.asked {
		n += count
	}
	return n
}

func (f *fleet) setSilent(node string, silent bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.silent[node] = silent
}

func nodes(n int) []*corev1.Node {
	var list []*corev1.Node
	for i := range n {
		name := fmt.Sprintf("n%d", i)
		list = append(list, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-" + name)}})
	}
	return list
}

// usages asks and says how long it took.
func (f *fleet) usages(t *testing.T, list []*corev1.Node) (map[string]*Usage, time.Duration) {
	t.Helper()
	began := time.Now()
	got := f.Usages(t.Context(), list)
	return got, time.Since(began)
}

func TestAnswersServeEveryone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, list := newFleet(), nodes(3)
		for range 10 { // at the same time
			go func() {
				if got := f.Usages(t.Context(), list); len(got) != 3 {
					t.Errorf("%d nodes", len(got))
				}
			}()
		}
		synctest.Wait()
		time.Sleep(time.Second)
		f.usages(t, list)
		if f.total() != 3 {
			t.Errorf("asked %d times, want once each", f.total())
		}
		time.Sleep(fresh)
		if got, _ := f.usages(t, list[:1]); f.total() != 4 || got["n0"].Node.NanoCores != 2 {
			t.Errorf("asked %d times, %+v: want the one node anew", f.total(), got["n0"])
		}
	})
}

// A node that does not answer costs the first to ask some seconds, once, and then nothing; what it
// said last is shown for a while.
func TestSilentNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, list := newFleet(), nodes(2)
		f.usages(t, list)
		f.setSilent("n1", true)
		time.Sleep(fresh)
		if got, took := f.usages(t, list); len(got) != 2 || got["n1"].Node.NanoCores != 1 || took != askTimeout {
			t.Errorf("%d nodes after %v, want both after %v: n1 with its last answer", len(got), took, askTimeout)
		}
		for range 20 {
			time.Sleep(fresh)
			if got, took := f.usages(t, list); got["n0"] == nil || took > f.took {
				t.Fatalf("%d nodes after %v", len(got), took)
			}
		}
		if got, _ := f.usages(t, list); got["n1"] != nil {
			t.Errorf("what n1 said minutes ago is still shown: %+v", got["n1"])
		}
		if err := f.Why(list[1]); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("why: %v", err)
		}
		f.setSilent("n1", false)
		time.Sleep(askTimeout + retryAfter) // a question may be under way
		f.usages(t, list)                   // does not wait for it, but has it asked
		time.Sleep(f.took)
		synctest.Wait()
		if got, _ := f.usages(t, list); got["n1"] == nil || f.Why(list[1]) != nil {
			t.Error("n1 is back, and not shown")
		}
	})
}

// The control plane knows already that the node is silent: nobody waits for it.
func TestUnknownNodeIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, list := newFleet(), nodes(2)
		f.setSilent("n1", true)
		list[1].Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionUnknown}}
		if got, took := f.usages(t, list); len(got) != 1 || took != f.took {
			t.Errorf("%d nodes after %v, want one after %v", len(got), took, f.took)
		}
		time.Sleep(askTimeout)
	})
}

// Thousands of nodes are asked some at a time; what is not there in time comes with the next request.
func TestManyNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, list := newFleet(), nodes(5000)
		f.took = 900 * time.Millisecond
		got, took := f.usages(t, list)
		if took > patience || len(got) < 8*parallel || len(got) == len(list) {
			t.Errorf("%d nodes after %v", len(got), took)
		}
		if f.peak > parallel {
			t.Errorf("%d were asked at once, want %d at most", f.peak, parallel)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if total := f.total(); total > len(got)+parallel {
			t.Errorf("%d were asked: nobody was waiting any more", total)
		}
		f.took = 100 * time.Millisecond
		if got, _ := f.usages(t, list); len(got) != len(list) {
			t.Errorf("%d nodes the second time", len(got))
		}
	})
}

func TestNothingIsKeptForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		f.usages(t, nodes(3))
		time.Sleep(keep - time.Second)
		f.usages(t, nodes(1))
		time.Sleep(keep - time.Second)
		if f.entries == nil {
			t.Error("forgotten too early")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if f.entries != nil {
			t.Errorf("%d nodes are remembered although nobody asks", len(f.entries))
		}
		if got, _ := f.usages(t, nodes(1)); got["n0"] == nil {
			t.Error("nothing comes after that")
		}
		time.Sleep(2 * keep)
	})
}

// Another machine of the same name has not used what the first one did.
func TestReplacedNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, list := newFleet(), nodes(1)
		f.usages(t, list)
		list[0].UID = "other"
		f.setSilent("n0", true)
		if got, _ := f.usages(t, list); got["n0"] != nil {
			t.Errorf("%+v", got["n0"])
		}
		time.Sleep(2 * keep)
	})
}
