package nodehealth

import corev1 "k8s.io/api/core/v1"

// aliases are the labels that older manifests select nodes by, and those whose value they have.
var aliases = []struct{ label, of string }{
	{"beta.kubernetes.io/os", corev1.LabelOSStable},
	{"beta.kubernetes.io/arch", corev1.LabelArchStable},
}

// OldLabels returns the aliases that a node of these labels lacks or has wrong, with their values. The API server
// sets them when a node is made, and the machine for nodes that come to differ later.
func OldLabels(labels map[string]string) map[string]string {
	var out map[string]string
	for _, a := range aliases {
		value, known := labels[a.of]
		if !known || labels[a.label] == value {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[a.label] = value
	}
	return out
}
