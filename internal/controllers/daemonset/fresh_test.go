package daemonset

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
)

// TestStaleCacheIsWaitedFor: the pod informer has listed version 5, but version 9 is stored; nothing is created
// until the informer has seen it.
func TestStaleCacheIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(testNode("n1"), testDaemonSet())
		var asked atomic.Int32
		client.PrependReactor("list", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
			version := "5"
			if l, ok := a.(clienttesting.ListActionImpl); ok && l.ListOptions.Limit == 1 {
				version = "9"
				asked.Add(1)
			}
			return true, &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: version}}, nil
		})
		c := &cluster{t: t, client: client, events: record.NewFakeRecorder(100)}
		c.writer = &recordingWriter{ClientWriter: ClientWriter{Client: client}}
		c.start()
		defer func() { c.stop() }()
		c.rest()
		if created, _, _ := c.writer.writes(); len(created) > 0 || asked.Load() == 0 {
			t.Fatalf("created %v on a stale cache; asked for the version %d times", created, asked.Load())
		}
		news := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "news", ResourceVersion: "9"}}
		if _, err := client.CoreV1().Pods("web").Create(context.Background(), news, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.rest()
		if created, _, _ := c.writer.writes(); len(created) != 1 {
			t.Errorf("created %v once the cache is fresh", created)
		}
	})
}
