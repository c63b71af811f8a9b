package volumes

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// fsGroup returns the group that a pod's volumes belong to.
func fsGroup(pod *corev1.Pod) *int64 {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.FSGroup
}

// onlyUser returns the user that every container of a pod runs as, if they agree:
// their tokens can then be that user's alone.
func onlyUser(pod *corev1.Pod) *int64 {
	var user *int64
	for c := range containers(&pod.Spec) {
		as := runsAs(pod, c)
		if as == nil || user != nil && *user != *as {
			return nil
		}
		user = as
	}
	return user
}

func runsAs(pod *corev1.Pod, c *corev1.Container) *int64 {
	if c.SecurityContext != nil && c.SecurityContext.RunAsUser != nil {
		return c.SecurityContext.RunAsUser
	}
	if pod.Spec.SecurityContext != nil {
		return pod.Spec.SecurityContext.RunAsUser
	}
	return nil
}

const (
	groupReads  = 0o440
	groupWrites = 0o660
	groupEnters = 0o110 | unix.S_ISGID // folders; what is made in them inherits the group
)

// giveToGroup gives a tree to the group gid, to read or to read and write, and
// makes new files in it inherit the group. Folders come after what they hold, so
// that a root that is right means a tree that is right.
func giveToGroup(path string, gid int64, write bool) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	bits := uint32(groupReads)
	if write {
		bits = groupWrites
	}
	if err := give(fd, int(gid), bits); err != nil {
		return fmt.Errorf("giving %s to group %d (fsGroup): %w", path, gid, err)
	}
	return nil
}

// give does so for one open file, and closes it.
func give(fd, gid int, bits uint32) error {
	defer func() { _ = unix.Close(fd) }()
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT == unix.S_IFDIR {
		if err := giveEntries(fd, gid, bits); err != nil {
			return err
		}
		bits |= groupEnters
	}
	if err := unix.Fchownat(fd, "", -1, gid, unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT == unix.S_IFLNK {
		return nil // its mode means nothing, and changing it would change its target
	}
	return unix.Chmod(descriptor(fd), stat.Mode&0o7777|bits)
}

func giveEntries(fd, gid int, bits uint32) error {
	readable, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(readable), "folder")
	defer func() { _ = dir.Close() }()
	for {
		names, err := dir.Readdirnames(1000)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			entry, err := unix.Openat(fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if errors.Is(err, unix.ENOENT) {
				continue // removed meanwhile
			}
			if err == nil {
				err = give(entry, gid, bits)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
}

// belongsToGroup says whether a tree's root looks as giveToGroup leaves it.
func belongsToGroup(path string, gid int64) bool {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return false
	}
	const want = groupWrites | groupEnters
	return stat.Mode&unix.S_IFMT == unix.S_IFDIR && int64(stat.Gid) == gid && stat.Mode&want == want
}
