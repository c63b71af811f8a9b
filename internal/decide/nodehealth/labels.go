package nodehealth

import corev1 "k8s.io/api/core/v1"

// aliases are the labels that older manifests select nodes by, and those whose value they have.
var aliases = []struct{ label, of string }{
	{"beta.kubernetes.io/os", corev1.LabelOSStable},
	{"beta.kubernetes.io/arch", corev1.LabelArchStable},
}

// missingLabels returns the aliases that the node lacks or has wrong.
func missingLabels(obj *corev1.Node) map[string]string {
	var out map[string]string
	for _, a := range aliases {
		value, known := obj.Labels[a.of]
		if !known || obj.Labels[a.label] == value {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[a.label] = value
	}
	return out
}
