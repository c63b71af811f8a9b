package volumes

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/moby/sys/mountinfo"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	"k8s.io/mount-utils"
	"k8s.io/utils/exec"
	"k8s.io/utils/ptr"
)

const (
	// defaultFSType is what a disk without a file system gets, as with the kubelet.
	defaultFSType = "ext4"
	// partitioned is how the library begins to speak of a disk that has partitions.
	partitioned = "unknown data"
)

// mountDisk mounts the file system of a block device on a folder of the pod, and makes one where there
// is none. The kernel counts the mounts: each pod has one of its own, and the last that goes frees the
// device.
func (m *Manager) mountDisk(dir, device string, pv *corev1.PersistentVolume, readOnly bool) error {
	m.disks.Lock() // two pods must not make a file system on one disk
	defer m.disks.Unlock()
	if there, err := mountinfo.Mounted(dir); err == nil && there {
		return nil
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	mounts, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) { return i.Source != device, false })
	if err != nil {
		return fmt.Errorf("reading the list of mounts: %w", err)
	}
	mounter := &mount.SafeFormatAndMount{Interface: mount.New(""), Exec: exec.New()}
	if len(mounts) > 0 { // another pod has it: it is formatted and checked
		return mounter.Mount(device, dir, mounts[0].FSType, pv.Spec.MountOptions)
	}
	has, err := mounter.GetDiskFormat(device)
	if errors.Is(err, exec.ErrExecutableNotFound) {
		return errors.New("is a disk, and blkid is missing on this node to see what is on it: install it with: apt-get install util-linux e2fsprogs")
	}
	if err != nil {
		return fmt.Errorf("is a disk whose content cannot be told: %w", err)
	}
	want := ptr.Deref(pv.Spec.Local.FSType, has)
	switch {
	case strings.HasPrefix(has, partitioned):
		return fmt.Errorf("is a disk (%s) with a partition table: name a partition of it", device)
	case has == "" && readOnly:
		return fmt.Errorf("is a disk without a file system (%s), and is used read-only: format it, or use it for writing once", device)
	case want == "":
		want = defaultFSType
	case has != "" && has != want:
		return fmt.Errorf("is a disk (%s) that holds %s, not %s: correct local.fsType, or erase the disk with wipefs if nothing on it is needed", device, has, want)
	}
	if has == "" {
		klog.InfoS("Making a file system on a disk that has none", "persistentVolume", pv.Name, "device", device, "fsType", want)
	}
	if err := mounter.FormatAndMount(device, dir, want, pv.Spec.MountOptions); err != nil {
		return fmt.Errorf("is a disk that cannot be mounted: %w", err)
	}
	return nil
}
