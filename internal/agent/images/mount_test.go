package images

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMounter lets a script play ctr, which notes how it is called.
func TestMounter(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	script := `#!/bin/sh
echo "$@" >> ` + log + `
case "$*" in
*"images mount"*) [ -e ` + dir + `/stale ] && { echo 'snapshot "x": already exists' >&2; exit 1; } ;;
*"images unmount"*) rm ` + dir + `/stale 2>/dev/null || { echo 'snapshot x does not exist: not found' >&2; exit 1; } ;;
*leases*) [ -e ` + dir + `/broken ] && { echo 'connection refused' >&2; exit 1; } ;;
esac
exit 0
`
	ctr := filepath.Join(dir, "ctr")
	if err := os.WriteFile(ctr, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	touch := func(name string) {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m := &Mounter{Ctr: ctr, Socket: "/run/c.sock"}
	touch("stale") // of an earlier life
	if err := m.Mount(t.Context(), "sha256:1", "/target"); err != nil {
		t.Fatal(err)
	}
	if err := m.Unmount(t.Context(), "/target"); err != nil {
		t.Errorf("nothing to unmount is an error: %v", err)
	}
	const call = "-a /run/c.sock -n k8s.io "
	want := call + strings.Join([]string{"images mount sha256:1 /target", "images unmount --rm /target", "leases delete /target", "images mount sha256:1 /target",
		"images unmount --rm /target", "leases delete /target"}, "\n"+call) + "\n"
	if got, _ := os.ReadFile(log); string(got) != want {
		t.Errorf("calls:\n%s\nwant:\n%s", got, want)
	}
	touch("broken")
	if err := m.Unmount(t.Context(), "/target"); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("error %v", err)
	}
	m.Ctr = filepath.Join(dir, "absent")
	if err := m.Mount(t.Context(), "x", "y"); err == nil {
		t.Error("a tool that is not there mounts")
	}
}
