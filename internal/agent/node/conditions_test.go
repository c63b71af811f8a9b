package node

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/everynode/everynode/internal/agent/measure"
)

// healthy is a measurement with nothing wrong.
func healthy() measurement {
	return measurement{
		podCIDR: "10.42.0.0/24", memory: 1 << 30,
		disk: measure.FileSystem{Capacity: 1000, Available: 500, Inodes: 1000, InodesFree: 500}, pids: 100, maxPID: 10000,
	}
}

func TestConditions(t *testing.T) {
	const fine = "Memory=False Disk=False PID=False NetworkUnavailable=False Ready=True"
	tests := []struct {
		name    string
		change  func(*measurement)
		want    string
		message string // part of Ready's
	}{
		{name: "healthy", change: func(*measurement) {}, want: fine},
		{name: "no memory", change: func(m *measurement) { m.memory = 1 << 20 }, want: strings.Replace(fine, "Memory=False", "Memory=True", 1)},
		{name: "disk full", change: func(m *measurement) { m.disk.Available = 99 }, want: strings.Replace(fine, "Disk=False", "Disk=True", 1)},
		{name: "disk at the threshold", change: func(m *measurement) { m.disk.Available = 100 }, want: fine},
		{name: "no inodes", change: func(m *measurement) { m.disk.InodesFree = 49 }, want: strings.Replace(fine, "Disk=False", "Disk=True", 1)},
		{name: "file system without inodes", change: func(m *measurement) { m.disk.Inodes, m.disk.InodesFree = 0, 0 }, want: fine},
		{name: "no process ids", change: func(m *measurement) { m.pids = 9999 }, want: strings.Replace(fine, "PID=False", "PID=True", 1)},
		{name: "more processes than ids", change: func(m *measurement) { m.pids = 20000 }, want: strings.Replace(fine, "PID=False", "PID=True", 1)},
		{name: "runtime away", change: func(m *measurement) { m.runtime = errors.New("connection refused") },
			want: strings.Replace(fine, "Ready=True", "Ready=False", 1), message: "container runtime is not ready: connection refused"},
		{name: "network not up", change: func(m *measurement) { m.network = errors.New("cni plugin not initialized") },
			want: strings.Replace(fine, "Ready=True", "Ready=False", 1), message: "network not ready: cni plugin"},
		{name: "no range yet", change: func(m *measurement) { m.podCIDR, m.network = "", errors.New("no range") },
			want: "Memory=False Disk=False PID=False NetworkUnavailable=True Ready=False", message: "waiting for the server"},
		{name: "no range for long", change: func(m *measurement) {
			m.podCIDR, m.network, m.waited = "", errors.New("no range"), time.Minute
		}, want: "Memory=False Disk=False PID=False NetworkUnavailable=True Ready=True", message: "host network"},
		{name: "unmeasured", change: func(m *measurement) { m.failed = []error{errors.New("no /proc")} },
			want: strings.Replace(fine, "Ready=True", "Ready=False", 1), message: "no /proc"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := healthy()
			tt.change(&m)
			got := conditions(nil, m, map[corev1.NodeConditionType]time.Time{}, time.Unix(1000, 0))
			if diff := cmp.Diff(tt.want, summary(got)); diff != "" {
				t.Error(diff)
			}
			if ready := find(got, corev1.NodeReady); !strings.Contains(ready.Message, tt.message) {
				t.Errorf("message %q, want one with %q", ready.Message, tt.message)
			}
		})
	}
}

func summary(list []corev1.NodeCondition) string {
	var out []string
	for _, c := range list {
		out = append(out, strings.TrimSuffix(string(c.Type), "Pressure")+"="+string(c.Status))
	}
	return strings.Join(out, " ")
}

func TestConditionsOverTime(t *testing.T) {
	start := time.Unix(1000, 0)
	last := map[corev1.NodeConditionType]time.Time{}
	foreign := corev1.NodeCondition{Type: "KernelDeadlock", Status: corev1.ConditionFalse, LastHeartbeatTime: metav1.NewTime(start)}
	list := conditions([]corev1.NodeCondition{foreign}, healthy(), last, start)

	full := healthy()
	full.disk.Available = 0
	list = conditions(list, full, last, start.Add(time.Minute))
	list = conditions(list, healthy(), last, start.Add(2*time.Minute))
	if c := find(list, corev1.NodeDiskPressure); c.Status != corev1.ConditionTrue || !strings.Contains(c.Message, "was short at") {
		t.Errorf("a minute after the disk was full: %+v, want still True", c)
	}
	list = conditions(list, healthy(), last, start.Add(6*time.Minute))
	if c := find(list, corev1.NodeDiskPressure); c.Status != corev1.ConditionFalse || !c.LastTransitionTime.Time.Equal(start.Add(6*time.Minute)) {
		t.Errorf("five minutes after: %+v, want False since then", c)
	}
	ready := find(list, corev1.NodeReady)
	if !ready.LastTransitionTime.Time.Equal(start) || !ready.LastHeartbeatTime.Time.Equal(start.Add(6*time.Minute)) {
		t.Errorf("Ready %+v: the transition must stay at the start, the heartbeat move", ready)
	}
	if diff := cmp.Diff(foreign, list[0]); diff != "" {
		t.Errorf("another reporter's condition was changed: %s", diff)
	}
}
