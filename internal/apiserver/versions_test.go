package apiserver

import (
	"testing"
	"unsafe"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	api "k8s.io/kubernetes/pkg/apis/core"

	"github.com/google/go-cmp/cmp"
)

// stored is an object as a watch cache decodes it, sharing nothing with any other.
func stored[T runtime.Object](tb testing.TB, o runtime.Object, into T) T {
	tb.Helper()
	codec := legacyscheme.Codecs.LegacyCodec(corev1.SchemeGroupVersion)
	b, err := runtime.Encode(codec, o)
	if err != nil {
		tb.Fatal(err)
	}
	if err := runtime.DecodeInto(codec, b, into); err != nil {
		tb.Fatal(err)
	}
	return into
}

func versionedPod() *corev1.Pod {
	now := metav1.Unix(1e9, 0)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n", UID: "1", Labels: map[string]string{"a": "b"},
			OwnerReferences: []metav1.OwnerReference{{Kind: "DaemonSet", Name: "d", UID: "2"}},
			ManagedFields:   []metav1.ManagedFieldsEntry{{Manager: "x", Operation: "Update", FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(`{"f:a":{}}`)}}},
		Spec: corev1.PodSpec{NodeName: "m", Tolerations: []corev1.Toleration{{Key: "k"}}, Volumes: []corev1.Volume{{Name: "v"}},
			Containers: []corev1.Container{{Name: "c", Image: "i", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("100m")}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, LastTransitionTime: now}}},
	}
}

func TestVersionsOfAPod(t *testing.T) {
	for name, change := range map[string]func(*corev1.Pod){
		"nothing": func(*corev1.Pod) {},
		"status":  func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning; p.Status.Conditions[0].Status = "True" },
		"spec":    func(p *corev1.Pod) { p.Spec.Containers[0].Image = "j" },
		"labels":  func(p *corev1.Pod) { p.Labels["a"] = "c" },
		"fewer":   func(p *corev1.Pod) { p.Status.Conditions, p.ManagedFields, p.Spec.Volumes = nil, nil, nil },
		"more": func(p *corev1.Pod) {
			p.ManagedFields = append(p.ManagedFields, metav1.ManagedFieldsEntry{Manager: "y"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := versionedPod()
			before, untouched := stored(t, v, &api.Pod{}), stored(t, v, &api.Pod{})
			change(v)
			after, want := stored(t, v, &api.Pod{}), stored(t, v, &api.Pod{})
			sharePod(before, after)
			if d := cmp.Diff(want, after); d != "" {
				t.Errorf("it says something else now (-want +got):\n%s", d)
			}
			if d := cmp.Diff(untouched, before); d != "" {
				t.Errorf("the version before has changed:\n%s", d)
			}
			same := unsafe.SliceData(before.Spec.Containers) == unsafe.SliceData(after.Spec.Containers)
			if same != (name != "spec") {
				t.Errorf("the containers are shared: %v", same)
			}
		})
	}
}

func TestVersionsOfANode(t *testing.T) {
	v := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "1", Labels: map[string]string{"a": "b"}}, Status: corev1.NodeStatus{
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, LastHeartbeatTime: metav1.Unix(1e9, 0)}},
		Images:     []corev1.ContainerImage{{Names: []string{"i:1", "i@sha256:0"}, SizeBytes: 1}}}}
	before := stored(t, v, &api.Node{})
	v.Status.Conditions[0].LastHeartbeatTime = metav1.Unix(2e9, 0)
	after, want := stored(t, v, &api.Node{}), stored(t, v, &api.Node{})
	shareNode(before, after)
	if d := cmp.Diff(want, after); d != "" {
		t.Errorf("it says something else now (-want +got):\n%s", d)
	}
	if unsafe.SliceData(before.Status.Images[0].Names) != unsafe.SliceData(after.Status.Images[0].Names) {
		t.Error("the images are not shared")
	}
}

func TestOtherKindsAreLeftAlone(*testing.T) {
	sharePod(&api.Node{}, &api.Pod{})
	shareNode(&api.Pod{}, &api.Node{})
}

func BenchmarkSharePod(b *testing.B) {
	v := versionedPod()
	before := stored(b, v, &api.Pod{})
	v.Status.Phase = corev1.PodRunning
	after := stored(b, v, &api.Pod{})
	for b.Loop() {
		after := *after
		sharePod(before, &after)
	}
}
