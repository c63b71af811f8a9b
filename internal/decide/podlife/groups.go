package podlife

import corev1 "k8s.io/api/core/v1"

// looseGroups: the pod wants no groups but its own, and the runtime would give it those
// of its image too.
func looseGroups(pod *corev1.Pod, node *corev1.Node) *Verdict {
	sc := pod.Spec.SecurityContext
	if sc == nil || sc.SupplementalGroupsPolicy == nil || *sc.SupplementalGroupsPolicy != corev1.SupplementalGroupsPolicyStrict || node == nil {
		return nil
	}
	if f := node.Status.Features; f != nil && f.SupplementalGroupsPolicy != nil && *f.SupplementalGroupsPolicy {
		return nil
	}
	return &Verdict{"SupplementalGroupsPolicyNotSupported", "SupplementalGroupsPolicy=Strict is not supported in this node"}
}
