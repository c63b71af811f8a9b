package agent

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/agent/watch"
)

// servicesPatience is how long the first containers wait for the list of Services, without which
// their environment would lack variables for good.
const servicesPatience = 5 * time.Second

// services knows the Services of the cluster, as far as containers' environments and the forwarder
// of the API's address need them.
type services struct {
	client kubernetes.Interface
	// api is told of Service default/kubernetes.
	api func(*corev1.Service)
	// synced is closed with the first complete list.
	synced chan struct{}

	mu   sync.Mutex
	all  map[string]*corev1.Service
	list []*corev1.Service // of all; nil when it has to be made anew
}

func newServices(client kubernetes.Interface, api func(*corev1.Service)) *services {
	return &services{client: client, api: api, synced: make(chan struct{}), all: map[string]*corev1.Service{}}
}

// List is the Services; the caller must not change them. If told to, it waits for the first list, but
// not for long: with no server in sight a restarted container has to do without.
func (s *services) List(wait bool) []*corev1.Service {
	if wait {
		s.await()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.list == nil {
		s.list = make([]*corev1.Service, 0, len(s.all))
		for _, service := range s.all {
			s.list = append(s.list, service)
		}
	}
	return s.list
}

// await waits for the first list.
func (s *services) await() {
	select {
	case <-s.synced:
		return
	default:
	}
	select {
	case <-s.synced:
	case <-time.After(servicesPatience):
		klog.Background().Info("The Services are not known yet: containers that start now lack variables for them")
	}
}

func (s *services) run(ctx context.Context) error {
	var once sync.Once
	watch.Run(ctx, s.client, s.client.CoreV1().Services(metav1.NamespaceAll), &corev1.Service{}, watch.Options{Name: "services"},
		watch.Handler[*corev1.Service]{
			Set:    func(service *corev1.Service) { s.change(func() { s.put(service) }) },
			Remove: func(service *corev1.Service) { s.change(func() { delete(s.all, serviceKey(service)) }) },
			Replace: func(all []*corev1.Service) {
				s.change(func() {
					clear(s.all)
					for _, service := range all {
						s.put(service)
					}
				})
				once.Do(func() { close(s.synced) })
			},
		})
	return nil
}

func (s *services) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.list = nil
}

// put keeps what is used of a Service: there may be thousands, with annotations of kilobytes.
func (s *services) put(service *corev1.Service) {
	if service.Namespace == metav1.NamespaceDefault && service.Name == "kubernetes" {
		s.api(service)
	}
	small := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: service.Namespace, Name: service.Name, UID: service.UID},
		Spec:       corev1.ServiceSpec{Type: service.Spec.Type, ClusterIP: service.Spec.ClusterIP, ClusterIPs: service.Spec.ClusterIPs},
	}
	for _, port := range service.Spec.Ports {
		small.Spec.Ports = append(small.Spec.Ports, corev1.ServicePort{Name: port.Name, Protocol: port.Protocol, Port: port.Port})
	}
	s.all[serviceKey(service)] = small
}

func serviceKey(service *corev1.Service) string { return service.Namespace + "/" + service.Name }
