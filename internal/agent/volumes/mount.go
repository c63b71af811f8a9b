package volumes

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// mountTmpfs mounts a tmpfs of at most size bytes (0: the kernel's default) on dir,
// unless one is there already. It reports whether it did.
func mountTmpfs(dir string, size int64) (fresh bool, err error) {
	there, err := mountinfo.Mounted(dir)
	if err != nil || there {
		return false, err
	}
	var options []string
	if size > 0 {
		options = append(options, fmt.Sprintf("size=%d", size))
	}
	// Secrets should not reach a swap device; kernels before 6.4 do not know how.
	err = unix.Mount("tmpfs", dir, "tmpfs", 0, strings.Join(append(options, "noswap"), ","))
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
		err = unix.Mount("tmpfs", dir, "tmpfs", 0, strings.Join(options, ","))
	}
	if err != nil {
		return false, fmt.Errorf("mounting a tmpfs on %s: %w (the agent must run as root)", dir, err)
	}
	return true, nil
}

// unmountUnder takes away every mount on dir or below it, the last first.
func unmountUnder(dir string) error {
	// Mounts can be stacked, and another mount may come while we look.
	for range 10 {
		mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
		if err != nil {
			return fmt.Errorf("reading the list of mounts: %w", err)
		}
		if len(mounts) == 0 {
			return nil
		}
		for i := len(mounts) - 1; i >= 0; i-- {
			if err := unmount(mounts[i].Mountpoint); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("something keeps mounting below %s", dir)
}

// unmount takes one mount away; a busy one vanishes from the tree at once and
// ends with its last user, so that a dying process cannot hold a pod up.
func unmount(path string) error {
	err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EBUSY) {
		err = unix.Unmount(path, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	}
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "unmount", Path: path, Err: err}
	}
	return nil
}
