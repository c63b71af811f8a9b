package teardown

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/everynode/everynode/internal/cli/layout"
)

func testLayout(t *testing.T) layout.Layout {
	t.Helper()
	dir := t.TempDir()
	l := layout.Layout{DataDir: filepath.Join(dir, "data"), RunDir: filepath.Join(dir, "run")}
	for _, d := range []string{l.DataDir, l.RunDir} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func touch(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func exists(path string) bool { _, err := os.Lstat(path); return err == nil }

func TestPodsWithoutARuntime(t *testing.T) {
	if n, err := Pods(context.Background(), testLayout(t)); n != 0 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
}

func TestGrace(t *testing.T) {
	for value, want := range map[string]int64{"": 10, "3": 3, "0": 0, "30": 10, "-1": 10, "soon": 10} {
		if got := grace(map[string]string{graceAnnotation: value}); got != want {
			t.Errorf("%q: got %d, want %d", value, got, want)
		}
	}
}

func TestPurge(t *testing.T) {
	l := testLayout(t)
	logs, links := filepath.Join(l.RunDir, "..", "pods"), filepath.Join(l.RunDir, "..", "containers")
	logs, links = filepath.Clean(logs), filepath.Clean(links)
	ours, volume, foreign := "ns_a_uid-1", "ns_b_uid-2", "ns_c_uid-3"
	for _, pod := range []string{ours, volume, foreign} {
		touch(t, filepath.Join(logs, pod, "c", "0.log"), filepath.Join(links, "keep"))
		if err := os.Symlink(filepath.Join(logs, pod, "c", "0.log"), filepath.Join(links, pod+".log")); err != nil {
			t.Fatal(err)
		}
	}
	if err := recordLogs(l, []*runtimeapi.PodSandbox{{Metadata: &runtimeapi.PodSandboxMetadata{Namespace: "ns", Name: "a", Uid: "uid-1"}}}); err != nil {
		t.Fatal(err)
	}
	touch(t, filepath.Join(l.PodVolumes(), "uid-2", "x"), filepath.Join(l.DataDir, "join-token"))
	if err := purgeLogs(l, logs, links); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		filepath.Join(logs, ours): false, filepath.Join(logs, volume): false, filepath.Join(logs, foreign): true,
		filepath.Join(links, ours+".log"): false, filepath.Join(links, foreign+".log"): true, filepath.Join(links, "keep"): true,
	} {
		if exists(path) != want {
			t.Errorf("%s: exists is %v, want %v", path, !want, want)
		}
	}
	if err := Purge(l); err != nil {
		t.Fatal(err)
	}
	if exists(l.DataDir) || exists(l.RunDir) {
		t.Error("the data or the run directory is still there")
	}
	if err := Purge(l); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

func TestPurgeRefusesForeignDirectories(t *testing.T) {
	l := testLayout(t)
	precious := filepath.Join(l.DataDir, "thesis.tex")
	touch(t, precious)
	if err := Purge(l); err == nil || !exists(precious) {
		t.Errorf("purge of a directory that is not ours: %v", err)
	}
}

func TestPurgeRefusesMounts(t *testing.T) {
	l := testLayout(t)
	precious := filepath.Join(t.TempDir(), "precious")
	volume := filepath.Join(l.PodVolumes(), "uid", "volume")
	touch(t, precious, filepath.Join(volume, "x"), filepath.Join(l.DataDir, "join-token"))
	if err := unix.Mount(filepath.Dir(precious), volume, "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("this test needs root: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(volume, unix.MNT_DETACH) })
	if err := Purge(l); err == nil || !strings.Contains(err.Error(), "still mounted") {
		t.Errorf("with a mount below the data: %v", err)
	}
	if n, err := unmountBelow(l.PodVolumes()); n != 1 || err != nil {
		t.Errorf("unmount: %d, %v", n, err)
	}
	if err := Purge(l); err != nil {
		t.Error(err)
	}
	if !exists(precious) {
		t.Error("purge reached through the mount")
	}
}

// A node that was left half: a shim of ours, one of another runtime, a container in the node's cgroup.
func TestSweep(t *testing.T) {
	l := testLayout(t)
	const node = "teardown-test"
	shim := filepath.Join(t.TempDir(), "containerd-shim-runc-v2")
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	start := func(argv ...string) *exec.Cmd {
		cmd := &exec.Cmd{Path: sleep, Args: argv}
		if strings.HasPrefix(argv[0], "/") { // sleep must not see the shim's arguments
			cmd = &exec.Cmd{Path: "/bin/sh", Args: append([]string{argv[0], "-c", "read forever"}, argv[1:]...)}
			if _, err := cmd.StdinPipe(); err != nil {
				t.Fatal(err)
			}
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		return cmd
	}
	ours := start(shim, "-namespace", "k8s.io", "-address", l.ContainerdSocket())
	foreign := start(shim, "-namespace", "k8s.io", "-address", "/run/other.sock")
	container := start("sleep", "1000")

	mounts, err := nodeCgroups("")
	if err != nil || len(mounts) != 0 {
		t.Fatalf("cgroups of no node: %v, %v", mounts, err)
	}
	made := makeCgroup(t, filepath.Join(CgroupParent(node), "burstable", "pod1"), container.Process.Pid)
	removed, err := Sweep(l, node)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(removed, ", "); got != "containerd shims 1, processes of containers 1, cgroups 3" {
		t.Errorf("removed: %s", got)
	}
	if alive(ours.Process.Pid) || alive(container.Process.Pid) || !alive(foreign.Process.Pid) {
		t.Error("a process of ours lives, or another's does not")
	}
	if exists(made) {
		t.Errorf("%s is still there", made)
	}
	if removed, err = Sweep(l, node); err != nil || len(removed) != 0 {
		t.Errorf("a second time: %v, %v", removed, err)
	}
}

// makeCgroup makes a cgroup in one hierarchy of this machine and moves a process there.
func makeCgroup(t *testing.T, name string, pid int) string {
	t.Helper()
	for _, root := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup"} {
		if !exists(filepath.Join(root, "cgroup.procs")) {
			continue
		}
		dir := filepath.Join(root, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatalf("this test needs root and cgroups: %v", err)
		}
		t.Cleanup(func() {
			for d := dir; d != root; d = filepath.Dir(d) {
				if err := os.Remove(d); err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Log(err)
				}
			}
		})
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	t.Fatal("no cgroup hierarchy is mounted")
	return ""
}
