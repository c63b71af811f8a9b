package containerd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/everynode/everynode/internal/cli/layout"
)

func TestConfig(t *testing.T) {
	l := layout.Layout{DataDir: filepath.Join(t.TempDir(), `odd "data"`), RunDir: filepath.Join(t.TempDir(), "run")}
	if err := os.MkdirAll(l.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	c, err := Detect(l, Tools{Containerd: "/c", Runc: "/usr/sbin/runc", CNIBinDir: "/opt/cni/bin"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Snapshotter != "overlayfs" && c.Snapshotter != "native" {
		t.Errorf("snapshotter %q", c.Snapshotter)
	}
	c.RestrictOOMScore = true
	if err := c.Write(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(l.ContainerdConfig())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`root = "` + strings.ReplaceAll(l.ContainerdRoot(), `"`, `\"`) + `"`,
		`sandbox_image = "everynode.local/pause:1"`,
		`restrict_oom_score_adj = true`,
		`bin_dir = "/opt/cni/bin"`,
		`BinaryName = "/usr/sbin/runc"`,
		`address = "` + l.RunDir + `/containerd.sock"`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no line %s in\n%s", want, text)
		}
	}
	for _, dir := range []string{l.CNIConf(), l.Registry(), l.ContainerdState(), l.RuncRoot()} {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

func TestFindCNI(t *testing.T) {
	half, whole := t.TempDir(), t.TempDir()
	for i, plugin := range cniPlugins {
		dirs := []string{whole, half}
		if i == 0 {
			dirs = dirs[:1]
		}
		for _, dir := range dirs {
			if err := os.WriteFile(filepath.Join(dir, plugin), nil, 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := findCNI([]string{"/nowhere", half, whole}); got != whole {
		t.Errorf("got %q, want the directory that has all plugins", got)
	}
	if got := findCNI([]string{half}); got != "" {
		t.Errorf("got %q for an incomplete directory", got)
	}
}

func TestFindToolsSaysWhatToInstall(t *testing.T) {
	_, err := findTools([]string{t.TempDir()}, []string{t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "apt-get install containerd runc iptables containernetworking-plugins") {
		t.Errorf("got %v", err)
	}
}
