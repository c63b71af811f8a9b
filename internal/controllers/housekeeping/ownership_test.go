package housekeeping

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
)

func TestGarbageCollectorHearsOfOwnership(t *testing.T) {
	now := metav1.Now()
	owner := metav1.OwnerReference{APIVersion: "apps/v1", Kind: "DaemonSet", Name: "d", UID: "1", Controller: ptr.To(true)}
	for name, tc := range map[string]struct {
		change func(*corev1.Pod)
		hears  bool
	}{
		"status":              {func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning }, false},
		"labels":              {func(p *corev1.Pod) { p.Labels = map[string]string{"a": "b"} }, false},
		"an equal owner":      {func(p *corev1.Pod) { p.OwnerReferences = []metav1.OwnerReference{*owner.DeepCopy()} }, false},
		"another object":      {func(p *corev1.Pod) { p.UID = "2" }, true},
		"deletion":            {func(p *corev1.Pod) { p.DeletionTimestamp = &now }, true},
		"a finalizer":         {func(p *corev1.Pod) { p.Finalizers = []string{metav1.FinalizerDeleteDependents} }, true},
		"no owner":            {func(p *corev1.Pod) { p.OwnerReferences = nil }, true},
		"another owner":       {func(p *corev1.Pod) { p.OwnerReferences[0].UID = "3" }, true},
		"no controller":       {func(p *corev1.Pod) { p.OwnerReferences[0].Controller = nil }, true},
		"it blocks its owner": {func(p *corev1.Pod) { p.OwnerReferences[0].BlockOwnerDeletion = ptr.To(true) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			before := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "1", OwnerReferences: []metav1.OwnerReference{owner}}}
			after := before.DeepCopy()
			tc.change(after)
			heard := false
			h := onlyOwnership{cache.ResourceEventHandlerFuncs{UpdateFunc: func(any, any) { heard = true }}}
			h.OnUpdate(before, after)
			if heard != tc.hears {
				t.Errorf("heard: %v, want %v", heard, tc.hears)
			}
		})
	}
	if sameOwnership("not", "an object") {
		t.Error("what cannot be read passes for unchanged")
	}
}
