package cli

import (
	"fmt"
	"regexp"
	"strings"
)

// removedVersions are the API versions that Kubernetes has dropped, what took their place, and
// what else has to change in a manifest. Source: the Deprecated API Migration Guide.
var removedVersions = []struct {
	version, kinds, since, use, also string
}{
	{"extensions/v1beta1", "DaemonSet Deployment ReplicaSet", "1.16", "apps/v1", "give spec.selector, equal to the labels of the template"},
	{"apps/v1beta1", "Deployment StatefulSet", "1.16", "apps/v1", "give spec.selector, equal to the labels of the template"},
	{"apps/v1beta2", "DaemonSet Deployment ReplicaSet StatefulSet", "1.16", "apps/v1", ""},
	{"extensions/v1beta1", "NetworkPolicy", "1.16", "networking.k8s.io/v1", ""},
	{"extensions/v1beta1", "Ingress", "1.22", "networking.k8s.io/v1", "each path needs pathType, each backend service.name and service.port"},
	{"networking.k8s.io/v1beta1", "Ingress IngressClass", "1.22", "networking.k8s.io/v1", "each path needs pathType, each backend service.name and service.port"},
	{"extensions/v1beta1", "PodSecurityPolicy", "1.16", "", "label the namespace pod-security.kubernetes.io/enforce instead"},
	{"policy/v1beta1", "PodSecurityPolicy", "1.25", "", "label the namespace pod-security.kubernetes.io/enforce instead"},
	{"policy/v1beta1", "PodDisruptionBudget", "1.25", "policy/v1", "an empty selector now means all pods of the namespace"},
	{"rbac.authorization.k8s.io/v1alpha1", "Role RoleBinding ClusterRole ClusterRoleBinding", "1.20", "rbac.authorization.k8s.io/v1", ""},
	{"rbac.authorization.k8s.io/v1beta1", "Role RoleBinding ClusterRole ClusterRoleBinding", "1.22", "rbac.authorization.k8s.io/v1", ""},
	{"scheduling.k8s.io/v1alpha1", "PriorityClass", "1.17", "scheduling.k8s.io/v1", ""},
	{"scheduling.k8s.io/v1beta1", "PriorityClass", "1.22", "scheduling.k8s.io/v1", ""},
	{"storage.k8s.io/v1beta1", "StorageClass CSIDriver CSINode VolumeAttachment", "1.22", "storage.k8s.io/v1", ""},
	{"storage.k8s.io/v1beta1", "CSIStorageCapacity", "1.27", "storage.k8s.io/v1", ""},
	{"coordination.k8s.io/v1beta1", "Lease", "1.22", "coordination.k8s.io/v1", ""},
	{"certificates.k8s.io/v1beta1", "CertificateSigningRequest", "1.22", "certificates.k8s.io/v1", "give spec.signerName and spec.usages"},
	{"authentication.k8s.io/v1beta1", "TokenReview", "1.22", "authentication.k8s.io/v1", ""},
	{"authorization.k8s.io/v1beta1", "SubjectAccessReview LocalSubjectAccessReview SelfSubjectAccessReview", "1.22", "authorization.k8s.io/v1", ""},
	{"node.k8s.io/v1beta1", "RuntimeClass", "1.25", "node.k8s.io/v1", ""},
	{"discovery.k8s.io/v1beta1", "EndpointSlice", "1.25", "discovery.k8s.io/v1", "topology became zone and nodeName"},
	{"events.k8s.io/v1beta1", "Event", "1.25", "events.k8s.io/v1", ""},
	{"batch/v1beta1", "CronJob", "1.25", "batch/v1", ""},
	{"autoscaling/v2beta1", "HorizontalPodAutoscaler", "1.25", "autoscaling/v2", ""},
	{"autoscaling/v2beta2", "HorizontalPodAutoscaler", "1.26", "autoscaling/v2", ""},
	{"apiextensions.k8s.io/v1beta1", "CustomResourceDefinition", "1.22", "apiextensions.k8s.io/v1", "give each version a schema"},
	{"admissionregistration.k8s.io/v1beta1", "MutatingWebhookConfiguration ValidatingWebhookConfiguration", "1.22", "admissionregistration.k8s.io/v1", "give sideEffects and admissionReviewVersions"},
	{"apiregistration.k8s.io/v1beta1", "APIService", "1.22", "apiregistration.k8s.io/v1", ""},
}

var noMatches = regexp.MustCompile(`no matches for kind "([^"]+)" in version "([^"]+)"`)

// removedHints says, for each kind that kubectl's message did not find because its version was
// removed, which version to write. It returns nothing for other messages.
func removedHints(message string) []string {
	var hints []string
	seen := map[string]bool{}
	for _, match := range noMatches.FindAllStringSubmatch(message, -1) {
		if hint := removedHint(match[1], match[2]); hint != "" && !seen[hint] {
			seen[hint] = true
			hints = append(hints, hint)
		}
	}
	return hints
}

func removedHint(kind, apiVersion string) string {
	for _, r := range removedVersions {
		if r.version != apiVersion || !contains(r.kinds, kind) {
			continue
		}
		hint := fmt.Sprintf("Kubernetes %s removed %s of %s", r.since, kind, r.version)
		if r.use != "" {
			hint += ": write apiVersion: " + r.use
		}
		if r.also != "" {
			hint += "; " + r.also
		}
		return hint
	}
	return ""
}

func contains(words, word string) bool {
	for _, w := range strings.Fields(words) {
		if w == word {
			return true
		}
	}
	return false
}
