package cgroups

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	ocgroups "github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func pod(uid string, requests, limits corev1.ResourceList) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: uid, UID: types.UID(uid)},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: requests, Limits: limits}}}},
	}
}

func list(cpu, memory string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
}

func TestPaths(t *testing.T) {
	tree, err := New("/everynode-n1", Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		pod  *corev1.Pod
		want string
	}{
		{pod("g", list("1", "1Gi"), list("1", "1Gi")), "/everynode-n1/podg"},
		{pod("b", list("1", "1Gi"), nil), "/everynode-n1/burstable/podb"},
		{pod("e", nil, nil), "/everynode-n1/besteffort/pode"},
	} {
		if got := tree.Path(c.pod); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
	for _, bad := range []string{"", "/", "relative", "/a/../b", "/a/"} {
		if _, err := New(bad, Limits{}); err == nil {
			t.Errorf("parent %q is taken", bad)
		}
	}
}

func TestUnits(t *testing.T) {
	for milli, want := range map[int64]uint64{0: 2, 1: 2, 100: 102, 1000: 1024, 1 << 40: 262144} {
		if got := Shares(milli); got != want {
			t.Errorf("shares of %dm: %d, want %d", milli, got, want)
		}
	}
	for milli, want := range map[int64]int64{0: 0, 1: 1000, 500: 50000, 2000: 200000} {
		if got := Quota(milli); got != want {
			t.Errorf("quota of %dm: %d, want %d", milli, got, want)
		}
	}
}

func TestPodLimitsNeedThoseOfAllContainers(t *testing.T) {
	p := pod("u", list("1", "1Gi"), list("2", "2Gi"))
	if r := podResources(p); r.CpuQuota != 200000 || r.Memory != 2<<30 || r.CpuShares != 1024 {
		t.Errorf("resources %+v", r)
	}
	p.Spec.Containers = append(p.Spec.Containers, corev1.Container{})
	if r := podResources(p); r.CpuQuota != 0 || r.Memory != 0 {
		t.Errorf("resources with a container without limits: %+v", r)
	}
}

// TestRealCgroups makes, limits, empties and removes cgroups on this machine.
func TestRealCgroups(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test makes cgroups: run it as root")
	}
	tree, err := New(fmt.Sprintf("/everynode-test-%d", os.Getpid()), Limits{Memory: 512 << 20, CPU: 1500, PIDs: 4321})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := tree.Destroy(); err != nil {
			t.Error(err)
		}
	}()
	guaranteed, burstable := pod("g", list("1", "64Mi"), list("1", "64Mi")), pod("b", list("500m", "8Mi"), nil)
	for _, p := range []*corev1.Pod{guaranteed, burstable, guaranteed} {
		if _, err := tree.Ensure(p); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, tree.Path(guaranteed), "memory", "memory.limit_in_bytes", "memory.max"); got != strconv.Itoa(64<<20) {
		t.Errorf("memory limit %s", got)
	}
	if got := read(t, tree.root, "memory", "memory.limit_in_bytes", "memory.max"); got != strconv.Itoa(512<<20) {
		t.Errorf("memory limit of all pods %s", got)
	}
	if got := read(t, tree.root, "pids", "pids.max", "pids.max"); got != "4321" {
		t.Errorf("limit of all pods' processes %s", got)
	}
	again, err := New(tree.root, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.Ensure(burstable); err != nil {
		t.Fatal(err)
	}
	if got := read(t, tree.root, "memory", "memory.limit_in_bytes", "memory.max"); got == strconv.Itoa(512<<20) {
		t.Errorf("nothing is reserved any more, and the memory limit of all pods is still %s", got)
	}
	if got := read(t, tree.root, "pids", "pids.max", "pids.max"); got != "max" {
		t.Errorf("nothing is reserved any more, and the limit of all pods' processes is still %s", got)
	}
	if got := tree.Pods(); len(got) != 2 || !slices.Contains(got, "g") || !slices.Contains(got, "b") {
		t.Errorf("pods %v", got)
	}

	stray := strings.Repeat("ab", 32)
	sleeper := startIn(t, tree.Path(guaranteed)+"/"+stray)
	if got := tree.Strays(guaranteed, func(id string) bool { return id == stray }); len(got) != 0 {
		t.Errorf("strays %v, although known", got)
	}
	if got := tree.Strays(guaranteed, func(string) bool { return false }); !slices.Equal(got, []string{stray}) {
		t.Errorf("strays %v", got)
	}
	if err := tree.Remove("g"); err != nil {
		t.Fatal(err)
	}
	if err := sleeper.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the process in the removed cgroup: %v", err)
	}
	if got := tree.Pods(); !slices.Equal(got, []types.UID{"b"}) {
		t.Errorf("pods %v", got)
	}
	if err := tree.Remove("never"); err != nil {
		t.Errorf("removing what is not there: %v", err)
	}
}

// TestShimIsFoundByItsArguments: only the shim of that very container is one.
func TestShimIsFoundByItsArguments(t *testing.T) {
	id := strings.Repeat("cd", 32)
	dir := t.TempDir()
	shim := filepath.Join(dir, "containerd-shim-runc-v2")
	if err := os.Symlink("/bin/sh", shim); err != nil {
		t.Fatal(err)
	}
	// The shell stands for a shim: its arguments are what counts. It prints its child's PID.
	cmd := exec.Command(shim, "-c", "sleep 1000 & echo $!; wait", "-id", id, "end")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var child int
	if _, err := fmt.Fscan(out, &child); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = unix.Kill(child, unix.SIGKILL)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	if got, ok := shimOf(child, id); !ok || got != cmd.Process.Pid {
		t.Errorf("shim %d, %v; want %d", got, ok, cmd.Process.Pid)
	}
	if _, ok := shimOf(child, strings.Repeat("ef", 32)); ok {
		t.Error("the shim of another container is taken")
	}
	if _, ok := shimOf(os.Getpid(), id); ok {
		t.Error("a process that is no shim's child has one")
	}
}

func read(t *testing.T, cgroup, controller, v1, v2 string) string {
	t.Helper()
	path := filepath.Join("/sys/fs/cgroup", controller, cgroup, v1)
	if ocgroups.IsCgroup2UnifiedMode() {
		path = filepath.Join("/sys/fs/cgroup", cgroup, v2)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// startIn starts a process in a new cgroup.
func startIn(t *testing.T, cgroup string) *exec.Cmd {
	t.Helper()
	if err := apply(cgroup, &ocgroups.Resources{SkipDevices: true}); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, dir := range hostDirs(cgroup) {
		if err := ocgroups.WriteCgroupProc(dir, cmd.Process.Pid); err != nil && !strings.Contains(dir, "cpuset") {
			t.Fatal(err)
		}
	}
	return cmd
}

// BenchmarkEnsure is on the way of every pod that starts.
func BenchmarkEnsure(b *testing.B) {
	tree, err := New(fmt.Sprintf("/everynode-bench-%d", os.Getpid()), Limits{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = tree.Destroy() }()
	for i := 0; b.Loop(); i++ {
		p := pod(strconv.Itoa(i), list("500m", "8Mi"), nil)
		if _, err := tree.Ensure(p); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := tree.Remove(p.UID); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
