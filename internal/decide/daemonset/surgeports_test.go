package daemonset

import (
	"testing"

	"github.com/everynode/everynode/internal/decide/placement"
	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

func TestSurgePorts(t *testing.T) {
	port := []placement.Port{{Protocol: corev1.ProtocolTCP, Number: 9100}}
	for name, c := range map[string]struct {
		strategy    appsv1.DaemonSetUpdateStrategy
		hostNetwork bool
		ports       []corev1.ContainerPort
		want        []placement.Port
	}{
		"no surge":            {strategy: rolling("1", "0"), ports: []corev1.ContainerPort{{HostPort: 9100}}},
		"surge":               {strategy: rolling("0", "1"), ports: []corev1.ContainerPort{{HostPort: 9100}}, want: port},
		"surge by percentage": {strategy: rolling("0", "1%"), ports: []corev1.ContainerPort{{HostPort: 9100}}, want: port},
		"host network":        {strategy: rolling("0", "1"), hostNetwork: true, ports: []corev1.ContainerPort{{ContainerPort: 9100}}, want: port},
		"container port":      {strategy: rolling("0", "1"), ports: []corev1.ContainerPort{{ContainerPort: 9100}}},
		"OnDelete":            {strategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType}, ports: []corev1.ContainerPort{{HostPort: 9100}}},
	} {
		t.Run(name, func(t *testing.T) {
			ds := newDaemonSet(c.strategy)
			ds.Spec.Template.Spec.HostNetwork = c.hostNetwork
			ds.Spec.Template.Spec.Containers[0].Ports = c.ports
			if d := cmp.Diff(c.want, SurgePorts(&ds.Spec)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}
