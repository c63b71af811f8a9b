package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/everynode/everynode/internal/cli/layout"
	"github.com/everynode/everynode/internal/cli/teardown"
)

// prefix starts the names of all machines, their directories and their cgroups; the id of the
// test process follows.
const prefix = "e2e-"

// The environment of a machine's init process.
const (
	envName = "EVERYNODE_E2E_MACHINE"
	envDir  = "EVERYNODE_E2E_DIR"
)

// Main is the TestMain of a package that uses clusters: the test program is also the init process
// of every machine.
func Main(m *testing.M) {
	if name := os.Getenv(envName); name != "" {
		runInit(name, os.Getenv(envDir))
	}
	if err := removeLeftovers(); err != nil {
		fmt.Fprintf(os.Stderr, "e2e: cleaning up after an earlier run: %v\n", err)
		os.Exit(1)
	}
	code := m.Run()
	for _, dir := range tempDirs {
		_ = os.RemoveAll(dir) // else the next run does
	}
	os.Exit(code)
}

var tempDirs []string

// TempDir makes a directory for the whole test process. The next run removes it if this one cannot.
func TempDir(name string) (string, error) {
	dir, err := os.MkdirTemp("", fmt.Sprintf("everynode-%s%d-%s-", prefix, os.Getpid(), name))
	if err == nil {
		tempDirs = append(tempDirs, dir)
	}
	return dir, err
}

// runInit is process 1 of a machine: it prepares the mounts, says so by closing its standard
// output, and then does nothing but collect the processes that lost their parents.
func runInit(name, dir string) {
	if err := prepare(name, dir); err != nil {
		fmt.Fprintf(os.Stderr, "machine %s: %v\n", name, err)
		os.Exit(1)
	}
	fmt.Println("ready")
	_ = os.Stdout.Close()
	for {
		var status syscall.WaitStatus
		switch _, err := syscall.Wait4(-1, &status, 0, nil); {
		case errors.Is(err, syscall.ECHILD):
			time.Sleep(100 * time.Millisecond) // none now; orphans come by themselves
		case err != nil && !errors.Is(err, syscall.EINTR):
			fmt.Fprintf(os.Stderr, "machine %s: wait: %v\n", name, err)
		}
	}
}

func prepare(name, dir string) error {
	steps := []func() error{
		func() error { return unix.Sethostname([]byte(name)) },
		// Private first: else the mounts below would appear on the real machine.
		func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
		func() error { return detachBelow("/run/", "/var/lib/", "/var/log/") },
		func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "") },
		func() error { return unix.Mount("proc", "/proc", "proc", 0, "") },
		func() error { return unix.Mount("run", "/run", "tmpfs", 0, "mode=755") },
		func() error { return os.MkdirAll("/run/lock", 0o755) },
		func() error { return bind(filepath.Join(dir, "varlib"), "/var/lib") },
		func() error { return bind(filepath.Join(dir, "varlog"), "/var/log") },
		func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644) },
	}
	for i, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	return nil
}

// detachBelow removes the real machine's mounts, those of its containers above all, from view.
func detachBelow(prefixes ...string) error {
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return !slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(m.Mountpoint, p) }), false
	})
	if err != nil {
		return err
	}
	for _, m := range slices.Backward(mounts) {
		if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("%s: %w", m.Mountpoint, err)
		}
	}
	return nil
}

func bind(source, target string) error {
	if err := os.MkdirAll(source, 0o755); err != nil {
		return err
	}
	return unix.Mount(source, target, "", unix.MS_BIND, "")
}

// removeLeftovers removes what test processes that are gone have left: cgroups and directories.
func removeLeftovers() error {
	names, err := leftovers()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := sweep(name); err != nil {
			return err
		}
	}
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), "everynode-"+prefix+"*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if dead(strings.TrimPrefix(filepath.Base(dir), "everynode-"+prefix)) {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// leftovers are the names of machines that have cgroups and no test process any more.
func leftovers() ([]string, error) {
	seen := map[string]bool{}
	var names []string
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		found, err := filepath.Glob(pattern + teardown.CgroupParent(prefix) + "*")
		if err != nil {
			return nil, err
		}
		for _, dir := range found {
			name := strings.TrimPrefix(filepath.Base(dir), teardown.CgroupParent(""))
			if !seen[name] && dead(strings.TrimPrefix(name, prefix)) {
				seen[name] = true
				names = append(names, name)
			}
		}
	}
	return names, nil
}

// dead tells whether the process that a name begins with is gone.
func dead(name string) bool {
	id, _, _ := strings.Cut(name, "-")
	pid, err := strconv.Atoi(id)
	return err == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}

// sweep removes the cgroups of a machine; its mounts and processes went with its namespaces.
func sweep(name string) error {
	_, err := teardown.Sweep(layout.Layout{DataDir: "/nonexistent", RunDir: "/nonexistent"}, name)
	return err
}
