package direct_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// A source shows what the API shows: the same lists, and the same events from the same version on.
func TestSourceShowsWhatTheAPIShows(t *testing.T) {
	f := start(t)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	f.namespace(t, "sources", nil)
	source := cache.ToListerWatcherWithContext(f.sources.Pods)
	pods := f.client.CoreV1().Pods("sources")
	create := func(name string) {
		if _, err := pods.Create(ctx, named(daemonPod("sources"), name), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	create("before")

	listed, err := source.ListWithContext(ctx, metav1.ListOptions{Limit: 500})
	if err != nil {
		t.Fatal(err)
	}
	list, want := listed.(*corev1.PodList), list(ctx, t, f)
	if d := cmp.Diff(want.Items, list.Items); d != "" {
		t.Errorf("the list differs from the API's:\n%s", d)
	}
	from := metav1.ListOptions{ResourceVersion: list.ResourceVersion, AllowWatchBookmarks: true}
	mine, err := source.WatchWithContext(ctx, from)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := f.client.CoreV1().Pods("").Watch(ctx, from)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Stop()

	create("later")
	later, err := pods.Get(ctx, "later", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	later.Labels = map[string]string{"changed": "yes"}
	if _, err := pods.Update(ctx, later, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	now := int64(0)
	if err := pods.Delete(ctx, "later", metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		t.Fatal(err)
	}
	for {
		a, b := next(ctx, t, mine), next(ctx, t, theirs)
		if d := cmp.Diff(b, a); d != "" {
			t.Fatalf("an event differs from the API's:\n%s", d)
		}
		if a.Type == watch.Deleted {
			break
		}
	}

	create("unread") // stopping must not depend on somebody reading
	mine.Stop()
	for range mine.ResultChan() {
	}
	mine.Stop()

	// What the API refuses, a source refuses for the same reason: by it a reflector knows that it has to list again.
	future := metav1.ListOptions{ResourceVersion: "1000000000"}
	_, err = source.ListWithContext(ctx, future)
	_, refused := f.client.CoreV1().Pods("").List(ctx, future)
	if a, b := apierrors.ReasonForError(err), apierrors.ReasonForError(refused); a != b || a == metav1.StatusReasonUnknown {
		t.Errorf("a version to come: %q, the API says %q", a, b)
	}
}

func named(p *corev1.Pod, name string) *corev1.Pod {
	p.Name = name
	return p
}

func list(ctx context.Context, t *testing.T, f *fixture) *corev1.PodList {
	t.Helper()
	l, err := f.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// next is the next event that is no bookmark: each watch has its own.
func next(ctx context.Context, t *testing.T, w watch.Interface) watch.Event {
	t.Helper()
	for {
		select {
		case e, open := <-w.ResultChan():
			if !open {
				t.Fatal("the watch ended")
			}
			if e.Type != watch.Bookmark {
				e.Object.GetObjectKind().SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Pod"))
				return e
			}
		case <-ctx.Done():
			t.Fatal("no event")
		}
	}
}
