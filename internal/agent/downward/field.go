package downward

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Field returns what a fieldRef shows in an environment variable. Beyond what
// Metadata knows, these are the fields of the spec and the status that only the
// node can fill in time.
func Field(ref *corev1.ObjectFieldSelector, pod *corev1.Pod, f Facts) (string, error) {
	if v := ref.APIVersion; v != "" && v != "v1" {
		return "", fmt.Errorf("fieldRef %s has apiVersion %q; v1 is the only one", ref.FieldPath, v)
	}
	switch ref.FieldPath {
	case "spec.nodeName", "spec.host":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return first(f.HostIPs), nil
	case "status.hostIPs":
		return strings.Join(f.HostIPs, ","), nil
	case "status.podIP":
		return first(podIPs(pod, f)), nil
	case "status.podIPs":
		return strings.Join(podIPs(pod, f), ","), nil
	}
	return Metadata(ref.FieldPath, pod)
}

// Metadata returns what a fieldRef shows in a file: a field of the pod's
// metadata, with all labels or annotations as sorted lines of key="value".
func Metadata(path string, pod *corev1.Pod) (string, error) {
	if field, key, ok := subscript(path); ok {
		return subscripted(field, key, pod)
	}
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return lines(pod.Labels), nil
	case "metadata.annotations":
		return lines(pod.Annotations), nil
	}
	return "", fmt.Errorf("fieldRef %q is not a field that pods can refer to", path)
}

func subscripted(field, key string, pod *corev1.Pod) (string, error) {
	from, name := pod.Labels, key
	switch field {
	case "metadata.labels":
	case "metadata.annotations":
		// Annotation keys may have capitals in their domain, as the API's validation allows.
		from, name = pod.Annotations, strings.ToLower(key)
	default:
		return "", fmt.Errorf("fieldRef %s['%s']: only metadata.labels and metadata.annotations take a key", field, key)
	}
	if problems := validation.IsQualifiedName(name); len(problems) != 0 {
		return "", fmt.Errorf("fieldRef %s['%s']: %s", field, key, strings.Join(problems, "; "))
	}
	return from[key], nil
}

// subscript splits field['key'].
func subscript(path string) (field, key string, ok bool) {
	rest, ok := strings.CutSuffix(path, "']")
	if !ok {
		return "", "", false
	}
	field, key, ok = strings.Cut(rest, "['")
	return field, key, ok && field != ""
}

// lines formats a map as the kubelet does, so that programs which parse it agree.
func lines(m map[string]string) string {
	out := make([]string, 0, len(m))
	for k, v := range m {
		out = append(out, k+"="+strconv.Quote(v))
	}
	// The keys decide the order, and "=" would sort between their characters.
	slices.SortFunc(out, func(a, b string) int {
		ka, _, _ := strings.Cut(a, "=")
		kb, _, _ := strings.Cut(b, "=")
		return strings.Compare(ka, kb)
	})
	return strings.Join(out, "\n")
}

func podIPs(pod *corev1.Pod, f Facts) []string {
	if len(f.PodIPs) == 0 && pod.Spec.HostNetwork {
		return f.HostIPs
	}
	return f.PodIPs
}

func first(s []string) string {
	if len(s) == 0 {
		return ""
	}
	return s[0]
}
