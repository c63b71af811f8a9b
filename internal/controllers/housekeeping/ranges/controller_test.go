package ranges

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"
)

type running struct {
	*fake.Clientset
	ledger *Ledger
	events *record.FakeRecorder
	stop   func()
}

// run runs a controller for nodes that are there already: four ranges, the first of which is the Services'.
func run(t *testing.T, nodes ...*corev1.Node) *running {
	t.Helper()
	_, cluster, _ := net.ParseCIDR("10.42.0.0/22")
	_, services, _ := net.ParseCIDR("10.42.0.0/24")
	r := &running{Clientset: fake.NewClientset(), ledger: &Ledger{}, events: record.NewFakeRecorder(100)}
	for _, n := range nodes {
		r.create(t, n)
	}
	f := informers.NewSharedInformerFactory(r.Clientset, 0)
	c, err := New(Options{
		Nodes: f.Core().V1().Nodes(), Ledger: r.ledger, Client: r.Clientset, Recorder: r.events,
		ClusterCIDR: cluster, MaskSize: 24, ServiceCIDR: services,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	f.Start(ctx.Done())
	var wg sync.WaitGroup
	wg.Go(func() { c.Run(ctx) })
	r.stop = func() { cancel(); wg.Wait(); f.Shutdown() }
	t.Cleanup(r.stop)
	return r
}

func (r *running) create(t *testing.T, n *corev1.Node) {
	t.Helper()
	if _, err := r.CoreV1().Nodes().Create(t.Context(), n, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func node(name string, cidrs ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Spec.PodCIDRs = cidrs
	if len(cidrs) > 0 {
		n.Spec.PodCIDR = cidrs[0]
	}
	return n
}

// awaitRanges waits until the nodes have these ranges, in any order of nodes.
func (r *running) awaitRanges(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	err := wait.PollUntilContextTimeout(t.Context(), 5*time.Millisecond, 20*time.Second, true, func(ctx context.Context) (bool, error) {
		l, err := r.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		got = nil
		for i := range l.Items {
			got = append(got, fmt.Sprint(l.Items[i].Spec.PodCIDR))
		}
		slices.Sort(got)
		return slices.Equal(got, want), err
	})
	if err != nil {
		t.Fatalf("ranges %q, want %q: %v", got, want, err)
	}
}

// Nodes that were created elsewhere get what is left of the ranges, and one that gets none hears of it and has the
// first that becomes free.
func TestNodesWithoutRange(t *testing.T) {
	r := run(t, node("a", "10.42.2.0/24"), node("b"), node("foreign", "192.168.0.0/24"))
	r.awaitRanges(t, "10.42.1.0/24", "10.42.2.0/24", "192.168.0.0/24")
	r.create(t, node("c"))
	r.awaitRanges(t, "10.42.1.0/24", "10.42.2.0/24", "10.42.3.0/24", "192.168.0.0/24")
	r.create(t, node("d"))
	if e := <-r.events.Events; !strings.Contains(e, ReasonNotAvailable) || !strings.Contains(e, "10.42.0.0/22 has no free /24") {
		t.Errorf("event %q", e)
	}
	if err := r.CoreV1().Nodes().Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.awaitRanges(t, "10.42.1.0/24", "10.42.2.0/24", "10.42.3.0/24", "192.168.0.0/24")
}

// The ledger gives nothing away before the ranges of all nodes are known, and nothing after the term.
func TestTerm(t *testing.T) {
	r := run(t, node("a", "10.42.1.0/24"))
	var cidr string
	err := wait.PollUntilContextTimeout(t.Context(), 5*time.Millisecond, 20*time.Second, true, func(ctx context.Context) (bool, error) {
		return cidr != "", r.ledger.With(ctx, "b", func(_ context.Context, c string) error { cidr = c; return nil })
	})
	if err != nil || cidr != "10.42.2.0/24" {
		t.Fatalf("given %q, %v", cidr, err)
	}
	r.stop()
	if cidr := create(t, r.ledger, "c", nil); cidr != "" {
		t.Errorf("given %s after the term", cidr)
	}
}
