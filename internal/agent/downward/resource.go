package downward

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Resource returns what a resourceFieldRef shows: a request or a limit of a
// container, in units of the divisor, rounded up. A container without a limit
// sees the pod's limit, or else what the node can allocate. container is the one
// that asks; it may be nil where the reference must name one (in files).
func Resource(ref *corev1.ResourceFieldSelector, pod *corev1.Pod, container *corev1.Container, f Facts) (string, error) {
	c, err := subject(ref, pod, container)
	if err != nil {
		return "", err
	}
	kind, name, _ := strings.Cut(ref.Resource, ".")
	q, err := quantity(corev1.ResourceName(name), kind, c, pod, f)
	if err != nil {
		return "", fmt.Errorf("resourceFieldRef %q: %w", ref.Resource, err)
	}
	return inUnits(q, ref.Divisor, name == string(corev1.ResourceCPU)), nil
}

func subject(ref *corev1.ResourceFieldSelector, pod *corev1.Pod, asking *corev1.Container) (*corev1.Container, error) {
	if ref.ContainerName == "" && asking != nil {
		return asking, nil
	}
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == ref.ContainerName {
				return &list[i], nil
			}
		}
	}
	return nil, fmt.Errorf("resourceFieldRef %q: the pod has no container %q", ref.Resource, ref.ContainerName)
}

func quantity(name corev1.ResourceName, kind string, c *corev1.Container, pod *corev1.Pod, f Facts) (resource.Quantity, error) {
	huge := strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
	switch name {
	case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
	default:
		if !huge {
			return resource.Quantity{}, fmt.Errorf("%q is not cpu, memory, ephemeral-storage or hugepages-*", name)
		}
	}
	switch {
	case kind == "requests":
		return c.Resources.Requests[name], nil
	case kind != "limits":
		return resource.Quantity{}, fmt.Errorf("%q is neither limits nor requests", kind)
	}
	if q, ok := c.Resources.Limits[name]; (ok && !q.IsZero()) || huge {
		return q, nil
	}
	// Huge pages are never overcommitted, so they have no fallback.
	if pod.Spec.Resources != nil {
		if q, ok := pod.Spec.Resources.Limits[name]; ok && !q.IsZero() {
			return q, nil
		}
	}
	return f.Allocatable[name], nil
}

// inUnits divides, rounding up, in thousandths for CPU.
func inUnits(q, divisor resource.Quantity, milli bool) string {
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	value, unit := float64(q.Value()), float64(divisor.Value())
	if milli {
		value, unit = float64(q.MilliValue()), float64(divisor.MilliValue())
	}
	return strconv.FormatInt(int64(math.Ceil(value/unit)), 10)
}
