package eviction

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func list(pairs ...string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		l[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return l
}

func TestAllocatable(t *testing.T) {
	hard := thresholds(t, Settings{})
	soft := thresholds(t, Settings{
		Hard: map[string]string{"memory.available": "0%"}, Soft: map[string]string{"memory.available": "50%"}, SoftGrace: map[string]string{"memory.available": "1m"},
	})
	for _, c := range []struct {
		name               string
		capacity, reserved corev1.ResourceList
		thresholds         []Threshold
		want               corev1.ResourceList
	}{
		{"default", list("cpu", "2", "memory", "1Gi", "ephemeral-storage", "1000", "hugepages-2Mi", "24Mi", "pods", "110"), nil, hard,
			list("cpu", "2", "memory", "900Mi", "ephemeral-storage", "900", "hugepages-2Mi", "24Mi", "pods", "110")},
		{"reserved", list("cpu", "2", "memory", "1Gi", "ephemeral-storage", "1000"), list("cpu", "500m", "memory", "124Mi", "ephemeral-storage", "100", "pid", "1000"), hard,
			list("cpu", "1500m", "memory", "800Mi", "ephemeral-storage", "800")},
		{"more than there is", list("cpu", "1", "memory", "50Mi"), list("cpu", "2"), hard, list("cpu", "0", "memory", "0")},
		{"soft thresholds take nothing", list("memory", "1Gi"), nil, soft, list("memory", "1Gi")},
	} {
		got := Allocatable(c.capacity, c.reserved, c.thresholds)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}
