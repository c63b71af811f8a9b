package apiserver

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"
)

// The last delete of a marked pod is one event; its preconditions hold; every other delete is upstream's.
func TestLastDelete(t *testing.T) {
	c := shared(t)
	ctx, client := t.Context(), c.admin(t)
	pods := client.CoreV1().Pods(c.namespace(t, nil))
	create := func(name string, finalizers ...string) *corev1.Pod {
		t.Helper()
		p := pod(name, "n")
		p.Finalizers = finalizers
		p, err := pods.Create(ctx, p, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	now := func(uid types.UID) metav1.DeleteOptions {
		return metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0), Preconditions: &metav1.Preconditions{UID: &uid}}
	}
	remove := func(name string, o metav1.DeleteOptions) {
		t.Helper()
		if err := pods.Delete(ctx, name, o); err != nil {
			t.Errorf("delete %s: %v", name, err)
		}
	}
	p := create("marked")
	w, err := pods.Watch(ctx, metav1.ListOptions{ResourceVersion: p.ResourceVersion, FieldSelector: "metadata.name=marked"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	remove("marked", metav1.DeleteOptions{})
	if err := pods.Delete(ctx, "marked", now("another")); !apierrors.IsConflict(err) {
		t.Errorf("another pod's end: %v, want conflict", err)
	}
	remove("marked", now(p.UID))
	for _, want := range []watch.EventType{watch.Modified, watch.Deleted} {
		select {
		case e := <-w.ResultChan():
			if e.Type != want {
				t.Errorf("event %s, want %s", e.Type, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no event %s", want)
		}
	}
	if err := pods.Delete(ctx, "marked", now(p.UID)); !apierrors.IsNotFound(err) {
		t.Errorf("twice: %v, want not found", err)
	}

	unmarked := create("unmarked")
	remove("unmarked", now(unmarked.UID))
	if _, err := pods.Get(ctx, "unmarked", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("an unmarked pod, forced: %v, want not found", err)
	}

	held := create("held", "example.org/hold")
	remove("held", metav1.DeleteOptions{})
	remove("held", now(held.UID))
	if got, err := pods.Get(ctx, "held", metav1.GetOptions{}); err != nil || got.DeletionTimestamp == nil {
		t.Errorf("a pod with a finalizer went: %v", err)
	}
	if _, err := pods.Patch(ctx, "held", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}); err != nil {
		t.Error(err)
	}
}
