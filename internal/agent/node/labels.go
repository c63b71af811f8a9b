package node

import (
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	kubeletapis "k8s.io/kubelet/pkg/apis"
)

// ValidateLabels refuses labels that the API server would refuse from a node: malformed ones, and
// those of the kubernetes.io and k8s.io namespaces that a node may not give itself (admission
// plugin NodeRestriction), so that a compromised node cannot draw workloads to itself.
func ValidateLabels(labels map[string]string) error {
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if err := validateLabel(key, labels[key]); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func validateLabel(key, value string) error {
	if msgs := validation.IsQualifiedName(key); len(msgs) > 0 {
		return fmt.Errorf("--node-labels: key %q: %s", key, strings.Join(msgs, "; "))
	}
	if msgs := validation.IsValidLabelValue(value); len(msgs) > 0 {
		return fmt.Errorf("--node-labels: value %q of %q: %s", value, key, strings.Join(msgs, "; "))
	}
	if own := ownLabels(""); hasKey(own, key) {
		return fmt.Errorf("--node-labels: %q is set by the agent itself; leave it out (--node-name sets the host name label)", key)
	}
	if reserved(key) && !kubeletapis.IsKubeletLabel(key) {
		return fmt.Errorf("--node-labels: %q: a node may not give itself this label; use one without kubernetes.io or k8s.io, one that starts with %s/, or set it as an administrator: kubectl label node",
			key, strings.Join(kubeletapis.KubeletLabelNamespaces(), "/ or "))
	}
	return nil
}

// reserved tells labels of Kubernetes' own namespaces.
func reserved(key string) bool {
	namespace, _, ok := strings.Cut(key, "/")
	if !ok {
		return false
	}
	for _, own := range []string{"kubernetes.io", "k8s.io"} {
		if namespace == own || strings.HasSuffix(namespace, "."+own) {
			return true
		}
	}
	return false
}

// ownLabels are the labels every node has.
func ownLabels(name string) map[string]string {
	return map[string]string{
		corev1.LabelHostname:   name,
		corev1.LabelArchStable: runtime.GOARCH,
		corev1.LabelOSStable:   runtime.GOOS,
	}
}

func hasKey(m map[string]string, key string) bool {
	_, ok := m[key]
	return ok
}
