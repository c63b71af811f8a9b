package daemonset

import (
	"context"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
)

// laggingPods answers lists of pods: an informer's (resourceVersion "0") with nothing at version 5, a consistent one
// with what is given at version 9.
func laggingPods(client *fake.Clientset, stored ...corev1.Pod) {
	client.PrependReactor("list", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		l, ok := a.(clienttesting.ListActionImpl)
		if ok && l.ListOptions.ResourceVersion == "" {
			return true, &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "9"}, Items: stored}, nil
		}
		return true, &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "5"}}, nil
	})
}

// TestStaleCacheIsWaitedFor: a pod is stored that the informer has not seen; nothing is created until it has.
func TestStaleCacheIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(testNode("n1"), testDaemonSet())
		news := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "news", ResourceVersion: "8"}}
		laggingPods(client, news)
		c := &cluster{t: t, client: client, events: record.NewFakeRecorder(100)}
		c.writer = &recordingWriter{ClientWriter: ClientWriter{Client: client}}
		c.start()
		defer func() { c.stop() }()
		c.rest()
		if created, _, _ := c.writer.writes(); len(created) > 0 {
			t.Fatalf("created %v on a stale cache", created)
		}
		if _, err := client.CoreV1().Pods("web").Create(context.Background(), &news, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.rest()
		if created, _, _ := c.writer.writes(); len(created) != 1 {
			t.Errorf("created %v once the cache is fresh", created)
		}
	})
}

// TestQuietCacheIsFresh: the informer's version is behind, because other kinds have changed since; but it shows
// everything. It must not wait for a bookmark.
func TestQuietCacheIsFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(testNode("n1"), testDaemonSet())
		laggingPods(client)
		c := &cluster{t: t, client: client, events: record.NewFakeRecorder(100)}
		c.writer = &recordingWriter{ClientWriter: ClientWriter{Client: client}}
		c.start()
		defer func() { c.stop() }()
		c.rest()
		if created, _, _ := c.writer.writes(); len(created) != 1 {
			t.Errorf("created %v", created)
		}
	})
}

func TestShownBy(t *testing.T) {
	pod := func(name, version string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ops", Name: name, ResourceVersion: version}}
	}
	listed := stored{version: "9", objects: map[string]string{"ops/a": "3", "ops/b": "7"}}
	for name, tc := range map[string]struct {
		cached []*corev1.Pod
		want   bool
	}{
		"the same":           {[]*corev1.Pod{pod("a", "3"), pod("b", "7")}, true},
		"newer":              {[]*corev1.Pod{pod("a", "11"), pod("b", "7"), pod("c", "10")}, true},
		"one is older":       {[]*corev1.Pod{pod("a", "3"), pod("b", "6")}, false},
		"one is missing":     {[]*corev1.Pod{pod("a", "3")}, false},
		"one is gone really": {[]*corev1.Pod{pod("a", "3"), pod("b", "7"), pod("c", "4")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			store := cache.NewStore(cache.MetaNamespaceKeyFunc)
			for _, p := range tc.cached {
				if err := store.Add(p); err != nil {
					t.Fatal(err)
				}
			}
			if got := listed.shownBy(store); got != tc.want {
				t.Errorf("shown: %v", got)
			}
		})
	}
}
