package apiserver

import (
	"context"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// heard collects the warnings that a client is given.
type heard struct {
	mu    sync.Mutex
	texts []string
}

func (h *heard) HandleWarningHeader(_ int, _, text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.texts = append(h.texts, text)
}

func (h *heard) take() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := strings.Join(h.texts, "\n")
	h.texts = nil
	return s
}

// Whoever writes a surge that cannot finish is told, at each write, also for the ports that hostNetwork implies.
func TestSurgeWarning(t *testing.T) {
	c := shared(t)
	ns := c.namespace(t, nil)
	config := c.as(t, "admin", "system:masters")
	h := &heard{}
	config.WarningHandler = h
	sets := clientFor(t, config).AppsV1().DaemonSets(ns)
	zero, one := intstr.FromInt32(0), intstr.FromString("10%")
	labels := map[string]string{"a": "b"}
	ds := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "d"}, Spec: appsv1.DaemonSetSpec{
		Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{
			HostNetwork: true,
			Containers:  []corev1.Container{{Name: "c", Image: "i", Ports: []corev1.ContainerPort{{ContainerPort: 9100}}}},
		}},
		UpdateStrategy: appsv1.DaemonSetUpdateStrategy{RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxUnavailable: &zero, MaxSurge: &one}},
	}}
	created, err := sets.Create(t.Context(), ds, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	const want = "maxSurge: an update can never finish: the new pod needs host port 9100/TCP"
	if got := h.take(); !strings.Contains(got, want) {
		t.Errorf("on create: %q", got)
	}
	write := func(change func(*appsv1.DaemonSet)) string {
		t.Helper()
		change(created)
		if created, err = sets.Update(context.Background(), created, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		return h.take()
	}
	if got := write(func(ds *appsv1.DaemonSet) { ds.Spec.MinReadySeconds = 1 }); !strings.Contains(got, want) {
		t.Errorf("on update: %q", got)
	}
	if got := write(func(ds *appsv1.DaemonSet) {
		ds.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateDaemonSet{MaxUnavailable: &one, MaxSurge: &zero}
	}); got != "" {
		t.Errorf("without a surge: %q", got)
	}
}

// Network plugins, storage drivers and the like are privileged: such a DaemonSet must be accepted.
func TestPrivilegedIsAccepted(t *testing.T) {
	c := shared(t)
	ns := c.namespace(t, nil)
	labels, privileged := map[string]string{"a": "b"}, true
	ds := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "d"}, Spec: appsv1.DaemonSetSpec{
		Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "c", Image: "i", SecurityContext: &corev1.SecurityContext{Privileged: &privileged}}},
		}},
	}}
	if _, err := c.admin(t).AppsV1().DaemonSets(ns).Create(t.Context(), ds, metav1.CreateOptions{}); err != nil {
		t.Error(err)
	}
}
