package volumes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"
)

// Mounts returns what the runtime has to mount into a container: its volumeMounts
// over the volumes that Setup returned. expand replaces $(NAME) in subPathExpr by
// the container's environment (env.Expand); it leaves what it does not know.
//
// cleanup is to be called when the container is not going to be made after all.
func (m *Manager) Mounts(pod *corev1.Pod, c *corev1.Container, vols map[string]Volume, expand func(string) string) (mounts []*runtimeapi.Mount, cleanup func(), err error) {
	cleanup = func() {} // sub paths stay bound until Teardown; a retry finds them
	if err := checkNames(pod); err != nil {
		return nil, cleanup, err
	}
	if err := segment(c.Name); err != nil {
		return nil, cleanup, fmt.Errorf("the container name %w", err)
	}
	root, err := m.root()
	if err != nil {
		return nil, cleanup, err
	}
	for i := range c.VolumeMounts {
		vm := &c.VolumeMounts[i]
		vol, ok := vols[vm.Name]
		if !ok {
			return nil, cleanup, fmt.Errorf("container %q mounts volume %q, which the pod does not have", c.Name, vm.Name)
		}
		if vol.Device {
			return nil, cleanup, fmt.Errorf("container %q mounts volume %q, which is a block device: use volumeDevices", c.Name, vm.Name)
		}
		b := binding{at: layout{root, pod.UID}, volume: vol, mount: vm, container: c.Name, index: i}
		mount, err := m.mount(b, expand)
		if err != nil {
			return nil, cleanup, fmt.Errorf("volumeMount %q of container %q: %w", vm.Name, c.Name, err)
		}
		mounts = append(mounts, mount)
	}
	return mounts, cleanup, nil
}

// binding is one volumeMount on its way to the runtime.
type binding struct {
	at        layout
	volume    Volume
	mount     *corev1.VolumeMount
	container string
	index     int
}

func (m *Manager) mount(b binding, expand func(string) string) (*runtimeapi.Mount, error) {
	propagation, err := propagation(b.mount.MountPropagation)
	if err != nil {
		return nil, err
	}
	recursive, err := m.recursiveReadOnly(b.mount)
	if err != nil {
		return nil, err
	}
	path, err := b.hostPath(expand)
	if err != nil {
		return nil, err
	}
	return &runtimeapi.Mount{
		HostPath:          path,
		ContainerPath:     absolute(b.mount.MountPath),
		Readonly:          b.mount.ReadOnly || b.volume.ReadOnly,
		RecursiveReadOnly: recursive,
		Propagation:       propagation,
	}, nil
}

func absolute(path string) string {
	if strings.HasPrefix(path, "/") {
		return path
	}
	return "/" + path
}

func propagation(mode *corev1.MountPropagationMode) (runtimeapi.MountPropagation, error) {
	switch p := ptr.Deref(mode, corev1.MountPropagationNone); p {
	case corev1.MountPropagationNone:
		return runtimeapi.MountPropagation_PROPAGATION_PRIVATE, nil
	case corev1.MountPropagationHostToContainer:
		return runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER, nil
	case corev1.MountPropagationBidirectional:
		return runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL, nil
	default:
		return 0, fmt.Errorf("mountPropagation %q is unknown", p)
	}
}

func (m *Manager) recursiveReadOnly(vm *corev1.VolumeMount) (bool, error) {
	mode := ptr.Deref(vm.RecursiveReadOnly, corev1.RecursiveReadOnlyDisabled)
	switch {
	case mode == corev1.RecursiveReadOnlyDisabled:
		return false, nil
	case !vm.ReadOnly:
		return false, errors.New("recursiveReadOnly needs readOnly: true")
	case ptr.Deref(vm.MountPropagation, corev1.MountPropagationNone) != corev1.MountPropagationNone:
		return false, errors.New("recursiveReadOnly does not go together with mountPropagation")
	case mode == corev1.RecursiveReadOnlyIfPossible:
		return m.o.RecursiveReadOnly, nil
	case mode != corev1.RecursiveReadOnlyEnabled:
		return false, fmt.Errorf("recursiveReadOnly %q is unknown", mode)
	case !m.o.RecursiveReadOnly:
		return false, errors.New("recursiveReadOnly: Enabled is not supported by the container runtime of this node; IfPossible would do without")
	}
	return true, nil
}

// hostPath returns what to mount: the volume, or the sub path bound to a place
// that no container can change.
func (b *binding) hostPath(expand func(string) string) (string, error) {
	sub := b.mount.SubPath
	if b.mount.SubPathExpr != "" {
		var err error
		if sub, err = expandAll(b.mount.SubPathExpr, expand); err != nil {
			return "", err
		}
	}
	if sub == "" {
		return b.volume.Path, nil
	}
	clean, err := relative(sub)
	if err != nil {
		return "", fmt.Errorf("subPath: %w", err)
	}
	path, err := b.bind(clean)
	if err != nil {
		return "", fmt.Errorf("subPath %q: %w", sub, err)
	}
	return path, nil
}

// expandAll expands a subPathExpr, in which a reference to nothing is an error:
// without it two pods could end up in one folder.
func expandAll(expr string, expand func(string) string) (string, error) {
	if expand == nil {
		expand = func(s string) string { return s }
	}
	for _, name := range references(expr) {
		ref := "$(" + name + ")"
		if value := expand(ref); value == "" || value == ref {
			return "", fmt.Errorf("subPathExpr %q: the container has no environment variable %s, or it is empty", expr, name)
		}
	}
	return expand(expr), nil
}

// references lists the names in $(NAME), where $$ hides what follows.
func references(s string) []string {
	var names []string
	for {
		_, rest, found := strings.Cut(s, "$")
		if !found {
			return names
		}
		s = rest
		if strings.HasPrefix(rest, "$") {
			s = rest[1:]
			continue
		}
		if name, after, closed := strings.Cut(strings.TrimPrefix(rest, "("), ")"); closed && strings.HasPrefix(rest, "(") {
			names, s = append(names, name), after
		}
	}
}

// bind opens the sub path without leaving the volume, binds what it found to a
// place of our own, and returns that. The runtime then mounts exactly what was
// checked, whatever containers do to the volume in the meantime.
func (b *binding) bind(sub string) (string, error) {
	base, err := unix.Open(b.volume.Path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("the volume cannot be opened: %w", err)
	}
	defer func() { _ = unix.Close(base) }()
	fd, err := b.open(base, sub)
	if err != nil {
		return "", plain(err)
	}
	defer func() { _ = unix.Close(fd) }()
	target := b.at.subPath(b.mount.Name, b.container, b.index)
	return target, bindTo(fd, target)
}

func (b *binding) open(base int, sub string) (int, error) {
	// In a volume that is the whole host there is no outside: absolute symlinks are fine.
	resolve := uint64(unix.RESOLVE_BENEATH)
	if real, err := filepath.EvalSymlinks(b.volume.Path); err == nil && real == "/" {
		resolve = unix.RESOLVE_IN_ROOT
	}
	fd, err := openBeneath(base, sub, unix.O_PATH, resolve)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	var stat unix.Stat_t
	if err := unix.Fstat(base, &stat); err != nil {
		return -1, err
	}
	// As open as the volume itself, or its users could not use it.
	if err := mkdirBeneath(base, sub, goMode(stat.Mode), resolve); err != nil {
		return -1, err
	}
	return openBeneath(base, sub, unix.O_PATH, resolve)
}

func goMode(mode uint32) fs.FileMode {
	return fs.FileMode(mode).Perm() | special(int32(mode&0o7000))
}

// plain says what went wrong without a word about the host's files: containers
// choose the paths and read the message.
func plain(err error) error {
	switch {
	case errors.Is(err, unix.EXDEV):
		return errors.New("a symlink in it leads out of the volume")
	case errors.Is(err, unix.ELOOP):
		return errors.New("it goes through a symlink that cannot be followed")
	case errors.Is(err, unix.ENOTDIR):
		return errors.New("a part of it is not a folder")
	case errors.Is(err, unix.EEXIST):
		return errors.New("a part of it is a symlink to nothing")
	case errors.Is(err, unix.ENOSYS):
		return errors.New("the kernel has no openat2: sub paths need Linux 5.6 or later")
	}
	var number unix.Errno
	if errors.As(err, &number) {
		return number
	}
	return errors.New("it cannot be opened")
}

// bindTo binds an open file or folder to target, unless that is done already.
func bindTo(fd int, target string) error {
	var want unix.Stat_t
	if err := unix.Fstat(fd, &want); err != nil {
		return err
	}
	if there, err := mountinfo.Mounted(target); err == nil && there {
		var have unix.Stat_t
		if err := unix.Lstat(target, &have); err == nil && have.Dev == want.Dev && have.Ino == want.Ino {
			return nil
		}
		if err := unmount(target); err != nil {
			return err
		}
	}
	if err := mountPoint(target, want.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil {
		return err
	}
	return unix.Mount(descriptor(fd), target, "", unix.MS_BIND, "")
}

// mountPoint makes an empty folder or file to mount on.
func mountPoint(target string, folder bool) error {
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return err
	}
	if info, err := os.Lstat(target); err == nil && info.IsDir() != folder {
		// What was bound here before was of the other kind.
		if err := os.Remove(target); err != nil {
			return err
		}
	}
	if folder {
		err := os.Mkdir(target, 0o750)
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	f, err := os.OpenFile(target, os.O_CREATE|os.O_RDONLY|unix.O_NOFOLLOW, 0o640)
	if err != nil {
		return err
	}
	return f.Close()
}
