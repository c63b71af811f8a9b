package teardown

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/everynode/everynode/internal/cli/layout"
)

// CgroupParent is the cgroup that holds all pods of a node.
func CgroupParent(nodeName string) string { return "everynode-" + nodeName }

// Sweep removes what is left of the node after Pods: shims of our runtime and the containers below
// the node's cgroup (killed), mounts, cgroups and empty directories. It returns an account of what
// it had to remove, for the user to see, and tries everything before it reports errors.
func Sweep(l layout.Layout, nodeName string) (removed []string, err error) {
	var errs []error
	step := func(what string, n int, err error) {
		if n > 0 {
			removed = append(removed, fmt.Sprintf("%s %d", what, n))
		}
		errs = append(errs, err)
	}
	n, err := killShims(l)
	step("containerd shims", n, err)
	cgroups, err := nodeCgroups(nodeName)
	errs = append(errs, err)
	n, err = killCgroups(cgroups)
	step("processes of containers", n, err)
	n, err = unmountBelow(l.PodVolumes(), l.RunDir, l.ContainerdRoot())
	step("mounts", n, err)
	n, err = removeCgroups(cgroups)
	step("cgroups", n, err)
	// No pod is left, so every address is free.
	errs = append(errs, os.RemoveAll(l.CNILeases()))
	removeEmpty("/run/containerd/s", "/run/containerd", "/var/lib/cni/results", "/var/lib/cni")
	return removed, errors.Join(errs...)
}

// removeEmpty removes directories that programs of ours made at places they cannot be told to
// leave alone (shim sockets, CNI's cache), as far as nobody uses them.
func removeEmpty(dirs ...string) {
	for _, dir := range dirs {
		_ = unix.Rmdir(dir) // not empty: someone else's
	}
}

// killShims ends the shims that were started for our runtime's socket. A shim that outlived its
// runtime would keep its container's files open for ever.
func killShims(l layout.Layout) (int, error) {
	return killProcesses(func(pid int) bool {
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			return false
		}
		args := strings.Split(string(cmdline), "\x00")
		i := slices.Index(args, "-address")
		return strings.HasPrefix(filepath.Base(args[0]), "containerd-shim") && i > 0 && i+1 < len(args) && args[i+1] == l.ContainerdSocket()
	})
}

// killProcesses sends SIGKILL to all processes that match, and waits until they are gone.
func killProcesses(match func(pid int) bool) (int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && match(pid) {
			pids = append(pids, pid)
		}
	}
	return len(pids), killAll(pids)
}

func killAll(pids []int) error {
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("killing process %d: %w", pid, err)
		}
	}
	deadline := time.Now().Add(5 * time.Second)
	for _, pid := range pids {
		for alive(pid) {
			if time.Now().After(deadline) {
				return fmt.Errorf("process %d does not end, not even by SIGKILL; it hangs in the kernel", pid)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	return nil
}

// alive tells whether a process runs; one that only waits for its parent does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := bytes.Cut(stat, []byte(") "))
	return len(rest) > 0 && rest[0] != 'Z' && rest[0] != 'X'
}

// nodeCgroups returns the node's parent cgroup in each mounted hierarchy that has it.
func nodeCgroups(nodeName string) ([]string, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return nil, fmt.Errorf("cgroup mounts: %w", err)
	}
	var dirs []string
	for _, m := range mounts {
		dir := filepath.Join(m.Mountpoint, CgroupParent(nodeName))
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			dirs = append(dirs, dir)
		}
	}
	return dirs, nil
}

func killCgroups(parents []string) (int, error) {
	members := map[int]bool{}
	for _, parent := range parents {
		err := filepath.WalkDir(parent, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.Name() != "cgroup.procs" {
				return err
			}
			text, err := os.ReadFile(path)
			for _, field := range strings.Fields(string(text)) {
				// 0 stands for a process that is not of this PID namespace.
				if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
					members[pid] = true
				}
			}
			return err
		})
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, fmt.Errorf("processes of %s: %w", parent, err)
		}
	}
	pids := make([]int, 0, len(members))
	for pid := range members {
		pids = append(pids, pid)
	}
	return len(pids), killAll(pids)
}

// removeCgroups removes the trees bottom up. The kernel refuses for a moment after the last
// process of a cgroup has ended.
func removeCgroups(parents []string) (int, error) {
	removed := 0
	for _, parent := range parents {
		var dirs []string
		err := filepath.WalkDir(parent, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return err
		})
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return removed, fmt.Errorf("cgroup %s: %w", parent, err)
		}
		slices.Reverse(dirs)
		for _, dir := range dirs {
			if err := removeCgroup(dir); err != nil {
				return removed, err
			}
			removed++
		}
	}
	return removed, nil
}

func removeCgroup(dir string) error {
	for deadline := time.Now().Add(3 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("removing cgroup %s: %w", dir, err)
		}
	}
}

// unmountBelow detaches every mount strictly below the given directories, innermost first.
func unmountBelow(dirs ...string) (int, error) {
	mounts, err := mountsBelow(dirs...)
	if err != nil {
		return 0, err
	}
	for _, m := range mounts {
		if err := unix.Unmount(m, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return 0, fmt.Errorf("unmounting %s: %w", m, err)
		}
	}
	return len(mounts), nil
}

func mountsBelow(dirs ...string) ([]string, error) {
	infos, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return !slices.ContainsFunc(dirs, func(dir string) bool { return strings.HasPrefix(m.Mountpoint, dir+"/") }), false
	})
	if err != nil {
		return nil, fmt.Errorf("mounts: %w", err)
	}
	mounts := make([]string, 0, len(infos))
	for _, m := range infos {
		mounts = append(mounts, m.Mountpoint)
	}
	// The table lists mounts in the order they were made: what lies inside comes later.
	slices.Reverse(mounts)
	return mounts, nil
}
