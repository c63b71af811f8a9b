package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestManifestFolderOfAKubelet(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	folder := func(path string) (string, string, error) { return manifestFolder(Options{PodManifestPath: path}, root) }

	if got, why, err := folder(DefaultPodManifestPath); got != DefaultPodManifestPath || why != "" || err != nil {
		t.Errorf("no kubelet: %q, %q, %v", got, why, err)
	}
	if got, _, err := folder(""); got != "" || err != nil {
		t.Errorf("none wanted: %q, %v", got, err)
	}
	write("etc/kubernetes/kubelet.conf", "")
	if got, why, err := folder(DefaultPodManifestPath); got != "" || !strings.Contains(why, "kubelet.conf") || !strings.Contains(why, "--pod-manifest-path") || err != nil {
		t.Errorf("a kubelet, and its folder by default: %q, %q, %v", got, why, err)
	}
	if got, _, err := folder("/etc/everynode/manifests"); got != "/etc/everynode/manifests" || err != nil {
		t.Errorf("a kubelet, and another folder: %q, %v", got, err)
	}
	write("var/lib/kubelet/config.yaml", "kind: KubeletConfiguration\nstaticPodPath: /srv/pods\n")
	if _, _, err := folder("/srv/pods/"); err == nil || !strings.Contains(err.Error(), "--pod-manifest-path /srv/pods") || !strings.Contains(err.Error(), "config.yaml") {
		t.Errorf("the kubelet's folder by name: %v", err)
	}
	if got, why, err := folder(DefaultPodManifestPath); got != DefaultPodManifestPath || why != "" || err != nil {
		t.Errorf("the kubelet has another folder: %q, %q, %v", got, why, err)
	}
	write("var/lib/kubelet/config.yaml", "{ not yaml")
	if got, why, err := folder(DefaultPodManifestPath); got != "" || why == "" || err != nil {
		t.Errorf("a kubelet with an unreadable configuration: %q, %q, %v", got, why, err)
	}
}

func TestTruncate(t *testing.T) {
	if got := truncate(strings.Repeat("a", 11), 10); got != "aaaaaaaaaa…" {
		t.Errorf("got %q", got)
	}
}
