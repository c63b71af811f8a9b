package daemonset

import (
	"github.com/everynode/everynode/internal/decide/placement"
	appsv1 "k8s.io/api/apps/v1"
)

// SurgePorts returns the host ports, those that hostNetwork implies too, because of which a surging update can
// never finish: the new pod is to come up beside the old one, which holds them. It is empty if the strategy does
// not surge. The API accepts the combination; whoever writes it should be told.
func SurgePorts(spec *appsv1.DaemonSetSpec) []placement.Port {
	r := spec.UpdateStrategy.RollingUpdate
	if spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType || r == nil || scaled(r.MaxSurge, 1, 0) == 0 {
		return nil
	}
	return placement.DemandOf(&spec.Template.Spec).Ports
}
