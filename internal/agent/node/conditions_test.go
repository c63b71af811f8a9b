package node

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// healthy is a measurement with nothing wrong.
func healthy() measurement {
	return measurement{podCIDR: "10.42.0.0/24"}
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
		{name: "no memory", change: func(m *measurement) { m.pressure = []corev1.NodeConditionType{corev1.NodeMemoryPressure} },
			want: strings.Replace(fine, "Memory=False", "Memory=True", 1)},
		{name: "no disk, no process ids", change: func(m *measurement) {
			m.pressure = []corev1.NodeConditionType{corev1.NodeDiskPressure, corev1.NodePIDPressure}
		}, want: "Memory=False Disk=True PID=True NetworkUnavailable=False Ready=True"},
		{name: "shutdown", change: func(m *measurement) { m.shuttingDown = true },
			want: strings.Replace(fine, "Ready=True", "Ready=False", 1), message: "node is shutting down"},
		{name: "runtime away", change: func(m *measurement) { m.runtime = errors.New("connection refused") },
			want: strings.Replace(fine, "Ready=True", "Ready=False", 1), message: "container runtime is not ready: connection refused"},
		{name: "network not up", change: func(m *measurement) { m.network = errors.New("cni plugin not initialized") },
			want: strings.Replace(fine, "Ready=True", "Ready=False", 1), message: "network not ready: cni plugin"},
		{name: "no range yet", change: func(m *measurement) { m.podCIDR, m.network = "", errors.New("no range") },
			want: "Memory=False Disk=False PID=False NetworkUnavailable=True Ready=False", message: "waiting for the server"},
		{name: "no range for long", change: func(m *measurement) {
			m.podCIDR, m.network, m.waited = "", errors.New("no range"), time.Minute
		}, want: "Memory=False Disk=False PID=False NetworkUnavailable=True Ready=True", message: "host network"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := healthy()
			tt.change(&m)
			got := conditions(nil, m, time.Unix(1000, 0))
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
	foreign := corev1.NodeCondition{Type: "KernelDeadlock", Status: corev1.ConditionFalse, LastHeartbeatTime: metav1.NewTime(start)}
	list := conditions([]corev1.NodeCondition{foreign}, healthy(), start)

	full := healthy()
	full.pressure = []corev1.NodeConditionType{corev1.NodeDiskPressure}
	list = conditions(list, full, start.Add(time.Minute))
	if c := find(list, corev1.NodeDiskPressure); c.Status != corev1.ConditionTrue || !c.LastTransitionTime.Time.Equal(start.Add(time.Minute)) {
		t.Errorf("as the disk is full: %+v", c)
	}
	list = conditions(list, healthy(), start.Add(6*time.Minute))
	if c := find(list, corev1.NodeDiskPressure); c.Status != corev1.ConditionFalse || !c.LastTransitionTime.Time.Equal(start.Add(6*time.Minute)) {
		t.Errorf("when it no longer is: %+v, want False since then", c)
	}
	ready := find(list, corev1.NodeReady)
	if !ready.LastTransitionTime.Time.Equal(start) || !ready.LastHeartbeatTime.Time.Equal(start.Add(6*time.Minute)) {
		t.Errorf("Ready %+v: the transition must stay at the start, the heartbeat move", ready)
	}
	if diff := cmp.Diff(foreign, list[0]); diff != "" {
		t.Errorf("another reporter's condition was changed: %s", diff)
	}
}
