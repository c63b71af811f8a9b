package watch

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func TestRun(t *testing.T) {
	node := func(name string) *corev1.Node { return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}} }
	client := fake.NewClientset(node("a"))
	ctx, cancel := context.WithCancel(t.Context())
	seen := make(chan string, 16)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		Run(ctx, client, client.CoreV1().Nodes(), &corev1.Node{}, Options{Name: "test"}, Handler[*corev1.Node]{
			Set:    func(n *corev1.Node) { seen <- "set " + n.Name },
			Remove: func(n *corev1.Node) { seen <- "remove " + n.Name },
			Replace: func(all []*corev1.Node) {
				var names []string
				for _, n := range all {
					names = append(names, n.Name)
				}
				slices.Sort(names)
				for _, n := range names {
					seen <- "replace " + n
				}
			},
		})
	}()
	var got []string
	next := func() {
		t.Helper()
		select {
		case s := <-seen:
			got = append(got, s)
		case <-time.After(10 * time.Second):
			t.Fatalf("nothing more was seen after %q", got)
		}
	}
	next()
	if _, err := client.CoreV1().Nodes().Create(ctx, node("b"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	next()
	if err := client.CoreV1().Nodes().Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	next()
	if diff := cmp.Diff([]string{"replace a", "set b", "remove a"}, got); diff != "" {
		t.Error(diff)
	}
	cancel()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("Run goes on after its context ended")
	}
}

func TestStoreRefusesOtherTypes(t *testing.T) {
	s := &store[*corev1.Node]{}
	if err := s.Add(&corev1.Pod{}); err == nil {
		t.Error("a Pod was taken for a Node")
	}
}
