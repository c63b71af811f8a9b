package env

import (
	"net"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// visible picks the services that a pod gets variables for, by name: those of its
// namespace, unless it wants none, and always the API server's.
func visible(services []*corev1.Service, pod *corev1.Pod) map[string]*corev1.Service {
	links := pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks
	out := map[string]*corev1.Service{}
	for _, s := range services {
		if s.Spec.ClusterIP == "" || s.Spec.ClusterIP == corev1.ClusterIPNone {
			continue
		}
		switch {
		case s.Namespace == pod.Namespace && links:
			out[s.Name] = s
		case s.Namespace == metav1.NamespaceDefault && s.Name == "kubernetes" && out[s.Name] == nil:
			out[s.Name] = s
		}
	}
	return out
}

// fromServices makes the variables that tell containers where services are: the
// Kubernetes names (X_SERVICE_HOST, X_SERVICE_PORT, X_SERVICE_PORT_NAME) and those
// of Docker's links (X_PORT, X_PORT_80_TCP…).
// https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
func fromServices(services map[string]*corev1.Service) map[string]string {
	out := map[string]string{}
	for _, s := range services {
		if len(s.Spec.Ports) == 0 {
			continue
		}
		prefix := variable(s.Name)
		out[prefix+"_SERVICE_HOST"] = s.Spec.ClusterIP
		out[prefix+"_SERVICE_PORT"] = number(s.Spec.Ports[0].Port)
		out[prefix+"_PORT"] = url(s, &s.Spec.Ports[0])
		for i := range s.Spec.Ports {
			port := &s.Spec.Ports[i]
			if port.Name != "" {
				out[prefix+"_SERVICE_PORT_"+variable(port.Name)] = number(port.Port)
			}
			link := prefix + "_PORT_" + number(port.Port) + "_" + strings.ToUpper(protocol(port))
			out[link] = url(s, port)
			out[link+"_PROTO"] = protocol(port)
			out[link+"_PORT"] = number(port.Port)
			out[link+"_ADDR"] = s.Spec.ClusterIP
		}
	}
	return out
}

func variable(name string) string { return strings.ToUpper(strings.ReplaceAll(name, "-", "_")) }

func number(port int32) string { return strconv.Itoa(int(port)) }

func protocol(p *corev1.ServicePort) string {
	if p.Protocol == "" {
		return "tcp"
	}
	return strings.ToLower(string(p.Protocol))
}

func url(s *corev1.Service, p *corev1.ServicePort) string {
	return protocol(p) + "://" + net.JoinHostPort(s.Spec.ClusterIP, number(p.Port))
}
