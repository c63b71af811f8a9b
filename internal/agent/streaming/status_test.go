package streaming

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// The fixture's statistics: a node without pods, of which something could not be measured.
func (f *fixture) CPUAndMemory(context.Context) (*statsapi.Summary, error) {
	return &statsapi.Summary{Node: statsapi.NodeStats{NodeName: "n1"}, Pods: []statsapi.PodStats{}}, errors.New("a cgroup is unreadable")
}

func (f *fixture) Summary(context.Context) (*statsapi.Summary, error) {
	return &statsapi.Summary{Node: statsapi.NodeStats{NodeName: "n1", Fs: &statsapi.FsStats{}}, Pods: []statsapi.PodStats{}}, nil
}

func (f *fixture) ResourceMetrics() http.Handler { return text("resource") }
func (f *fixture) CAdvisorMetrics() http.Handler { return text("cadvisor") }

func text(s string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(s)) })
}

func (f *fixture) healthy() error {
	if f.sick.Load() {
		return errors.New("nobody looks after the pods")
	}
	return nil
}

func TestStatus(t *testing.T) {
	f := start(t)
	admin := f.ca.pair(t, "admin")
	for path, want := range map[string]string{
		"/stats/summary": `"fs":{`,
		"/stats/summary?only_cpu_and_memory=true": `"pods":[]`, // although something could not be measured
		"/metrics":          "# HELP",
		"/metrics/resource": "resource",
		"/metrics/cadvisor": "cadvisor",
		"/configz":          `"kubeletconfig":{`,
		"/healthz":          "ok",
		"/healthz/ping":     "ok",
		"/healthz/syncloop": "ok",
		"/logs/":            "0.log",
		"/logs/0.log":       "",
		"/runningpods/":     `"containers":[{"name":"c"`,
	} {
		if code, body := f.get(http.MethodGet, path, admin, ""); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d %q, want %q", path, code, body, want)
		}
	}
	if _, body := f.get(http.MethodGet, "/stats/summary?only_cpu_and_memory=true", admin, ""); strings.Contains(body, "fs") {
		t.Errorf("more than CPU and memory: %s", body)
	}
	if code, _ := f.get(http.MethodGet, "/metrics/probes", admin, ""); code != http.StatusOK {
		t.Errorf("/metrics/probes: %d", code)
	}
	var list corev1.PodList
	if _, body := f.get(http.MethodGet, "/runningpods/", admin, ""); json.Unmarshal([]byte(body), &list) != nil || len(list.Items) != 1 || len(list.Items[0].Spec.Containers) != 1 {
		t.Errorf("running pods %+v: want one with the container that runs", list.Items)
	}
	f.sick.Store(true)
	if code, body := f.get(http.MethodGet, "/healthz", admin, ""); code != http.StatusInternalServerError || !strings.Contains(body, "[-]syncloop failed") {
		t.Errorf("/healthz when sick: %d %q", code, body)
	}
}

// A pod that mounts the machine's logs can make symlinks there; they must not show anything else.
func TestLogFilesStayInTheirFolder(t *testing.T) {
	f := start(t)
	admin := f.ca.pair(t, "admin")
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("the key"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(f.log)
	relative, err := filepath.Rel(dir, secret)
	if err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"absolute": secret, "relative": relative} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if code, body := f.get(http.MethodGet, "/logs/"+name, admin, ""); code == http.StatusOK || strings.Contains(body, "the key") {
			t.Errorf("a symlink with an %s target: %d %q", name, code, body)
		}
	}
	if code, body := f.get(http.MethodGet, "/logs/../secret", admin, ""); code == http.StatusOK {
		t.Errorf("a path with dots: %d %q", code, body)
	}
}
