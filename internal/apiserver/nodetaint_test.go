package apiserver

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A node that joins unready is kept empty until somebody sees that it is ready; one that joins ready is not.
func TestNodeJoins(t *testing.T) {
	client := shared(t).admin(t)
	taint := []corev1.Taint{{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}}
	for name, test := range map[string]struct {
		ready corev1.ConditionStatus
		want  []corev1.Taint
	}{
		"joins-silent":  {"", taint},
		"joins-unready": {corev1.ConditionFalse, taint},
		"joins-unknown": {corev1.ConditionUnknown, taint},
		"joins-ready":   {corev1.ConditionTrue, nil},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(name)
			n.Labels = map[string]string{corev1.LabelOSStable: "linux", "beta.kubernetes.io/os": "other"}
			if test.ready != "" {
				n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: test.ready}}
			}
			stored, err := client.CoreV1().Nodes().Create(t.Context(), n, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = client.CoreV1().Nodes().Delete(t.Context(), name, metav1.DeleteOptions{}) }()
			if diff := cmp.Diff(test.want, stored.Spec.Taints); diff != "" {
				t.Errorf("taints (-want +got)\n%s", diff)
			}
			want := map[string]string{corev1.LabelOSStable: "linux", "beta.kubernetes.io/os": "linux"}
			if diff := cmp.Diff(want, stored.Labels); diff != "" {
				t.Errorf("labels (-want +got)\n%s", diff)
			}
		})
	}
}
