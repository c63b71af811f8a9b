package agent

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/everynode/everynode/internal/agent/cgroups"
)

func TestReservationsLimitThePods(t *testing.T) {
	list := func(memory, cpu, pids string) corev1.ResourceList {
		l := corev1.ResourceList{}
		for name, text := range map[corev1.ResourceName]string{corev1.ResourceMemory: memory, corev1.ResourceCPU: cpu, pid: pids} {
			if text != "" {
				l[name] = resource.MustParse(text)
			}
		}
		return l
	}
	machine := list("1Gi", "2", "32768")
	for _, c := range []struct {
		reserved corev1.ResourceList
		want     cgroups.Limits
		err      string
	}{
		{list("", "", ""), cgroups.Limits{}, ""},
		{list("0", "0", "0"), cgroups.Limits{}, ""},
		{list("256Mi", "500m", "1k"), cgroups.Limits{Memory: 768 << 20, CPU: 1500, PIDs: 31768}, ""},
		{list("", "", "40k"), cgroups.Limits{}, "40k pid from pods, and this machine has 32768"},
		{list("1Gi", "", ""), cgroups.Limits{}, "1Gi memory from pods, and this machine has 1Gi"},
	} {
		got, err := limits(c.reserved, machine)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%v reserved: %+v, %v; want %+v, %q", c.reserved, got, err, c.want, c.err)
		}
	}
}
