package placement

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// DaemonTolerations returns the tolerations of a daemon's pod: the template's own, then those that keep a
// daemon on a node in trouble (it may be what repairs it). The spec is not changed.
//
// https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/#taints-and-tolerations
func DaemonTolerations(spec *corev1.PodSpec) []corev1.Toleration {
	all := slices.Clone(spec.Tolerations)
	for _, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		all = addToleration(all, key, corev1.TaintEffectNoExecute)
	}
	for _, key := range []string{
		corev1.TaintNodeDiskPressure, corev1.TaintNodeMemoryPressure,
		corev1.TaintNodePIDPressure, corev1.TaintNodeUnschedulable,
	} {
		all = addToleration(all, key, corev1.TaintEffectNoSchedule)
	}
	if spec.HostNetwork {
		all = addToleration(all, corev1.TaintNodeNetworkUnavailable, corev1.TaintEffectNoSchedule)
	}
	return all
}

// addToleration adds "key exists", or puts it where the template has the same with a limit in seconds: a
// daemon's tolerations of these taints have none.
func addToleration(all []corev1.Toleration, key string, effect corev1.TaintEffect) []corev1.Toleration {
	add := corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: effect}
	found := false
	for i := range all {
		if all[i].MatchToleration(&add) {
			all[i], found = add, true
		}
	}
	if found {
		return all
	}
	return append(all, add)
}
