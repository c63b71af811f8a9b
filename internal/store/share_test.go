package store

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

func TestEachVersionMeetsTheOneBefore(t *testing.T) {
	version := func(uid types.UID, v string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", UID: uid, ResourceVersion: v}}
	}
	var met []string
	s := sharedVersions{share: func(before, after runtime.Object) {
		met = append(met, before.(*corev1.Pod).ResourceVersion+"-"+after.(*corev1.Pod).ResourceVersion)
	}}
	last := map[types.UID]runtime.Object{}
	for _, e := range []watch.Event{
		{Type: watch.Added, Object: version("a", "1")},
		{Type: watch.Added, Object: version("b", "2")},
		{Type: watch.Modified, Object: version("a", "3")},
		{Type: watch.Bookmark, Object: version("a", "4")},
		{Type: watch.Error, Object: &metav1.Status{}},
		{Type: watch.Modified, Object: version("a", "5")},
		{Type: watch.Deleted, Object: version("a", "6")},
		{Type: watch.Added, Object: version("c", "7")}, // of the same name
		{Type: watch.Added, Object: version("a", "8")},
	} {
		s.see(last, e)
	}
	want := []string{"1-3", "3-5", "5-6"}
	if len(met) != len(want) || met[0] != want[0] || met[1] != want[1] || met[2] != want[2] {
		t.Errorf("%v, want %v", met, want)
	}
	if len(last) != 3 {
		t.Errorf("%d objects are remembered, want 3", len(last))
	}
}
