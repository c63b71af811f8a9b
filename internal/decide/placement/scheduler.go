package placement

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// onlyScheduler lists what the spec asks for that depends on more than the node itself, so that only the
// scheduler can judge it. Preferences are left out: a daemon pod has one node to go to, so they choose nothing.
func onlyScheduler(spec *corev1.PodSpec) []string {
	if spec.NodeName != "" {
		return nil // the template is bound as it is
	}
	var found []string
	if s := spec.SchedulerName; s != "" && s != corev1.DefaultSchedulerName {
		found = append(found, "scheduler "+s)
	}
	if len(spec.SchedulingGates) > 0 {
		found = append(found, "scheduling gate "+spec.SchedulingGates[0].Name)
	}
	if spec.SchedulingGroup != nil {
		found = append(found, "scheduling group")
	}
	if a := spec.Affinity; a != nil {
		if a.PodAffinity != nil && len(a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution) > 0 {
			found = append(found, "required pod affinity")
		}
		if a.PodAntiAffinity != nil && len(a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution) > 0 {
			found = append(found, "required pod anti-affinity")
		}
	}
	for _, c := range spec.TopologySpreadConstraints {
		if c.WhenUnsatisfiable == corev1.DoNotSchedule {
			found = append(found, "topology spread over "+c.TopologyKey)
		}
	}
	if len(spec.ResourceClaims) > 0 {
		found = append(found, "resource claim "+spec.ResourceClaims[0].Name)
	}
	for i := range spec.Volumes {
		if why := volumeNeedsScheduler(&spec.Volumes[i]); why != "" {
			found = append(found, fmt.Sprintf("volume %s %s", spec.Volumes[i].Name, why))
		}
	}
	return found
}

// volumeNeedsScheduler says why a volume's node must be chosen by the scheduler, "" if it need not.
func volumeNeedsScheduler(v *corev1.Volume) string {
	switch {
	case v.PersistentVolumeClaim != nil:
		return "claims a PersistentVolumeClaim"
	case v.Ephemeral != nil:
		return "claims an ephemeral PersistentVolumeClaim"
	case v.GCEPersistentDisk != nil, v.AWSElasticBlockStore != nil, v.ISCSI != nil, v.RBD != nil:
		return "is a disk that one pod at a time may use" // the scheduler's VolumeRestrictions
	default:
		return ""
	}
}
