package podlife

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// unenforced: the pod relies on an AppArmor profile, which this kernel would ignore.
func unenforced(pod *corev1.Pod, enabled bool) *Verdict {
	if enabled || !wantsAppArmor(pod) {
		return nil
	}
	return &Verdict{"AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host: enable it, or leave the profile out of the pod"}
}

func wantsAppArmor(pod *corev1.Pod) bool {
	if sc := pod.Spec.SecurityContext; sc != nil && confined(sc.AppArmorProfile) {
		return true
	}
	for _, c := range withInit(pod) {
		if c.SecurityContext != nil && confined(c.SecurityContext.AppArmorProfile) {
			return true
		}
	}
	for key, profile := range pod.Annotations {
		if strings.HasPrefix(key, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix) && profile != corev1.DeprecatedAppArmorBetaProfileNameUnconfined {
			return true
		}
	}
	return false
}

func confined(p *corev1.AppArmorProfile) bool {
	return p != nil && p.Type != corev1.AppArmorProfileTypeUnconfined
}
