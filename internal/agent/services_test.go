package agent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func service(namespace, name, ip string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Annotations: map[string]string{"big": "x"}},
		Spec:       corev1.ServiceSpec{ClusterIP: ip, Selector: map[string]string{"a": "b"}, Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP, NodePort: 30000}}},
	}
}

func TestServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(service("default", "kubernetes", "10.43.0.1"), service("ns", "web", "10.43.0.9"))
		api := make(chan string, 8)
		s := newServices(client, func(service *corev1.Service) { api <- service.Spec.ClusterIP })
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = s.run(ctx) }()

		if got := len(s.List(true)); got != 2 {
			t.Errorf("%d services at the first call, want 2: it must wait for the list", got)
		}
		if got := <-api; got != "10.43.0.1" {
			t.Errorf("the API's address is %s", got)
		}
		synctest.Wait() // the watch stands
		if err := client.CoreV1().Services("default").Delete(ctx, "kubernetes", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		want := &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web"},
			Spec:       corev1.ServiceSpec{ClusterIP: "10.43.0.9", Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}}},
		}
		if diff := cmp.Diff([]*corev1.Service{want}, s.List(true)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestServicesWithoutServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServices(fake.NewClientset(), func(*corev1.Service) {})
		begin := time.Now()
		if got := s.List(true); len(got) != 0 || time.Since(begin) != servicesPatience {
			t.Errorf("List returned %d services after %s", len(got), time.Since(begin))
		}
		begin = time.Now()
		if got := s.List(false); len(got) != 0 || time.Since(begin) != 0 {
			t.Errorf("List returned %d services after %s, and was not to wait", len(got), time.Since(begin))
		}
	})
}
