package volumes

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Everything here works on file descriptors: between looking at a path and using
// it, a container may have put a symlink in its place.

// openBeneath opens path below the folder base without ever leaving it: a symlink
// that leads out, however briefly, is EXDEV.
func openBeneath(base int, path string, flags uint64, resolve uint64) (int, error) {
	how := &unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC,
		Resolve: resolve | unix.RESOLVE_NO_MAGICLINKS,
	}
	for tries := 0; ; tries++ {
		fd, err := unix.Openat2(base, path, how)
		// EAGAIN: something was renamed meanwhile, so that "beneath" could not be told.
		if !errors.Is(err, unix.EINTR) && (!errors.Is(err, unix.EAGAIN) || tries > 100) {
			return fd, err
		}
	}
}

// mkdirBeneath makes the folders of path that are missing below base, each with
// mode whatever the umask is.
func mkdirBeneath(base int, path string, mode fs.FileMode, resolve uint64) error {
	parent, err := openBeneath(base, ".", unix.O_PATH|unix.O_DIRECTORY, resolve)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(parent) }()
	done := "."
	for _, name := range strings.Split(filepath.Clean(path), "/") {
		done = filepath.Join(done, name)
		next, err := openBeneath(base, done, unix.O_PATH|unix.O_DIRECTORY, resolve)
		if errors.Is(err, unix.ENOENT) {
			next, err = mkdirIn(parent, name, mode)
		}
		if err != nil {
			return err
		}
		_ = unix.Close(parent)
		parent = next
	}
	return nil
}

// mkdirIn makes one folder and opens it. A symlink to nowhere of that name is
// EEXIST; one put there after is ELOOP or ENOTDIR.
func mkdirIn(parent int, name string, mode fs.FileMode) (int, error) {
	if err := unix.Mkdirat(parent, name, uint32(mode.Perm())); err != nil {
		return -1, err
	}
	fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Fchmod(fd, unixMode(mode)); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// unixMode turns Go's bits into the kernel's.
func unixMode(mode fs.FileMode) uint32 {
	out := uint32(mode.Perm())
	for bit, set := range map[fs.FileMode]uint32{
		fs.ModeSetuid: unix.S_ISUID, fs.ModeSetgid: unix.S_ISGID, fs.ModeSticky: unix.S_ISVTX,
	} {
		if mode&bit != 0 {
			out |= set
		}
	}
	return out
}

// descriptor is a path by which the kernel finds an open file again.
func descriptor(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// deepest is how many levels of folders removeTree holds open at a time.
const deepest = 200

// removeTree removes name in the folder parent and everything below it. It follows
// no symlink and enters no mount: a mount in the way is an error, and what is
// mounted stays whole.
func removeTree(parent, name string) error {
	fd, err := unix.Open(parent, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: parent, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	r := remover{}
	if err := r.remove(fd, name, 0); err != nil {
		return &os.PathError{Op: "remove", Path: filepath.Join(parent, name), Err: err}
	}
	return nil
}

// remover removes one tree. A container can nest folders deeper than there are
// file descriptors, so what lies too deep is moved up to the tree's own root,
// whose turn comes last.
type remover struct {
	root   int
	lifted int
}

func (r *remover) remove(parent int, name string, depth int) error {
	err := unix.Unlinkat(parent, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) {
		return err
	}
	if depth == deepest {
		return r.lift(parent, name)
	}
	fd, err := openBeneath(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_XDEV)
	if errors.Is(err, unix.EXDEV) {
		return errors.New("something is mounted in it, and what is mounted must not be deleted: unmount it first")
	}
	if err != nil {
		return err
	}
	if depth == 0 {
		r.root = fd
	}
	if err := r.empty(fd, depth); err != nil {
		return err
	}
	return unix.Unlinkat(parent, name, unix.AT_REMOVEDIR)
}

// empty removes what is in the folder fd, and closes fd.
func (r *remover) empty(fd, depth int) error {
	dir := os.NewFile(uintptr(fd), "folder")
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
			if err := r.remove(fd, name, depth+1); err != nil {
				return err
			}
		}
		// Removing while reading may skip entries: start over until none is left.
		if _, err := dir.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
}

func (r *remover) lift(parent int, name string) error {
	for {
		r.lifted++
		err := unix.Renameat2(parent, name, r.root, ".lifted-"+strconv.Itoa(r.lifted), unix.RENAME_NOREPLACE)
		if !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
}
