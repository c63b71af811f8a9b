//go:build e2e

package cluster

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/everynode/everynode/internal/cli/teardown"
)

func TestMain(m *testing.M) { Main(m) }

func output(t *testing.T, m *Machine, argv ...string) string {
	t.Helper()
	r, err := m.Run(context.Background(), argv...)
	if err != nil || r.Code != 0 {
		t.Fatalf("%v: %v, code %d: %s", argv, err, r.Code, r.Stderr)
	}
	return strings.TrimSpace(r.Stdout)
}

func TestMachineIsApart(t *testing.T) {
	m := NewMachine(t, "apart")
	if got := output(t, m, "hostname"); got != m.Name {
		t.Errorf("host name %q, want %q", got, m.Name)
	}
	if got := output(t, m, "sh", "-c", "echo $$; cat /proc/1/comm; ls /run"); strings.Contains(got, "systemd") || !strings.HasSuffix(got, "lock") {
		t.Errorf("it does not have processes and a /run of its own: %q", got)
	}
	output(t, m, "sh", "-c", "touch /var/lib/mine /run/mine; mkdir /run/m; mount -t tmpfs m /run/m")
	if _, err := os.Stat(m.Path("/var/lib/mine")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat("/run/mine"); err == nil {
		t.Error("a file in the machine's /run is in the real one")
	}
	// Only what this test made is looked at: others may mount things meanwhile.
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), " /run/m ") || strings.Contains(string(mounts), m.Dir) {
		t.Errorf("mounts of the machine are on the real one (%v): %s", err, mounts)
	}
	p := m.Start("sleep", "sleep", "1000")
	m.Crash()
	select {
	case <-p.Done():
	case <-time.After(5 * time.Second):
		t.Error("a process of the machine outlived it")
	}
}

func TestClock(t *testing.T) {
	m := NewMachine(t, "clock")
	for _, ahead := range []time.Duration{-30 * 365 * 24 * time.Hour, time.Hour} {
		m.Clock = ahead
		p := m.Start("date"+ahead.String(), "date", "+%s")
		<-p.Done()
		text, err := os.ReadFile(p.Log)
		if err != nil {
			t.Fatal(err)
		}
		seconds, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if got := time.Until(time.Unix(seconds, 0)); err != nil || (got-ahead).Abs() > time.Minute {
			t.Errorf("its clock is %v ahead, want %v: %s, %v", got, ahead, text, err)
		}
	}
}

// The test program in the role of a test process that dies: TestNothingOutlivesTheTest kills it.
func TestHang(t *testing.T) {
	file := os.Getenv("E2E_HANG_FILE")
	if file == "" {
		return // it is no test by itself
	}
	m := NewMachine(t, "hang")
	p := m.Start("sleep", "sleep", "1000")
	for _, dir := range cgroupDirs(m.Name) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(file, []byte(strconv.Itoa(p.PID())+" "+m.Name), 0o600); err != nil {
		t.Fatal(err)
	}
	select {}
}

func cgroupDirs(name string) []string {
	dir := "/sys/fs/cgroup"
	if _, err := os.Stat(filepath.Join(dir, "pids")); err == nil {
		dir = filepath.Join(dir, "pids")
	}
	return []string{filepath.Join(dir, teardown.CgroupParent(name), "pod1")}
}

func TestNothingOutlivesTheTest(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestHang$")
	cmd.Env = append(os.Environ(), "E2E_HANG_FILE="+file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	var name string
	Await(t, "the other test has a machine", 20*time.Second, func(context.Context) error {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		number, rest, _ := strings.Cut(string(text), " ")
		name = rest
		pid, err = strconv.Atoi(number)
		return err
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	Await(t, "the machine's process is gone", 10*time.Second, func(context.Context) error {
		if err := unix.Kill(pid, 0); err == nil {
			return os.ErrExist
		}
		return nil
	})
	if err := removeLeftovers(); err != nil {
		t.Fatal(err)
	}
	left, _ := filepath.Glob(filepath.Join(os.TempDir(), "everynode-"+name+"*"))
	for _, dir := range cgroupDirs(name) {
		if _, err := os.Stat(dir); err == nil {
			left = append(left, dir)
		}
	}
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
