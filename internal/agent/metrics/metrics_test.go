package metrics

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func scrape(t *testing.T, h http.Handler) string {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody))
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return "\n" + w.Body.String()
}

func TestNames(t *testing.T) {
	runs := corev1.ContainerStatus{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
	ended := corev1.ContainerStatus{State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}}
	pods := []*corev1.Pod{
		{Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{runs, runs}, InitContainerStatuses: []corev1.ContainerStatus{ended}}},
		{Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{ended}}},
		{},
	}
	Register("n1", func() []*corev1.Pod { return pods })
	Register("n2", nil) // has no effect
	now := time.Now()
	PodRuns(now.Add(-300*time.Millisecond), now.Add(-3*time.Second), now)
	PodStarted(nil)
	PodStarted(errors.New("no"))
	ContainerStarted(nil)
	Relisted(time.Time{}, now, now)
	Relisted(now.Add(-time.Second), now, now)
	Operation("version", time.Millisecond, nil)
	Operation("version", time.Millisecond, errors.New("no"))
	text := scrape(t, Handler())
	for _, line := range []string{
		`kubelet_node_name{node="n1"} 1`, "kubelet_running_pods 1", `kubelet_running_containers{container_state="running"} 2`,
		`kubelet_running_containers{container_state="exited"} 2`, "kubelet_started_pods_total 2", "kubelet_started_pods_errors_total 1",
		"kubelet_started_containers_total 1", "kubelet_started_containers_errors_total 0",
		`kubelet_pod_start_duration_seconds_bucket{le="0.5"} 1`, `kubelet_pod_start_total_duration_seconds_bucket{le="2"} 0`,
		"kubelet_pleg_relist_duration_seconds_count 2", "kubelet_pleg_relist_interval_seconds_count 1",
		`kubelet_runtime_operations_total{operation_type="version"} 2`, `kubelet_runtime_operations_errors_total{operation_type="version"} 1`,
		`kubelet_runtime_operations_duration_seconds_count{operation_type="version"} 2`,
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

func TestProbes(t *testing.T) {
	Register("n1", func() []*corev1.Pod { return nil })
	p := Probed{Namespace: "ns", Pod: "p", UID: "u", Container: "c"}
	p.Count("Liveness", "failed")
	p.Count("Liveness", "failed")
	const line = `prober_probe_total{container="c",namespace="ns",pod="p",pod_uid="u",probe_type="Liveness",result="failed"} 2`
	if text := scrape(t, ProbesHandler()); !strings.Contains(text, "\n"+line+"\n") {
		t.Errorf("no line %s in %s", line, text)
	}
	p.Forget()
	if text := scrape(t, ProbesHandler()); strings.Contains(text, "prober_probe_total{") {
		t.Errorf("after the pod is gone: %s", text)
	}
}
