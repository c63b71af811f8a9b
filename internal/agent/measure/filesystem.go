package measure

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// FileSystem is the room on a file system. Those like btrfs count no inodes: all three are 0 then.
type FileSystem struct {
	// Capacity, Used and Available are bytes. Available is what ordinary users may take: Capacity
	// less Used less what the file system reserves for root.
	Capacity, Used, Available      uint64
	Inodes, InodesUsed, InodesFree uint64
	// Device tells two paths on the same file system.
	Device uint64
}

// FileSystem measures the file system that path, a file or folder of this machine, is on.
func (m *Machine) FileSystem(path string) (FileSystem, error) {
	var st unix.Statfs_t
	var at unix.Stat_t
	if err := unix.Statfs(path, &st); err != nil {
		return FileSystem{}, fmt.Errorf("room on the file system of %s: %w", path, err)
	}
	if err := unix.Stat(path, &at); err != nil {
		return FileSystem{}, fmt.Errorf("room on the file system of %s: %w", path, err)
	}
	block := uint64(st.Bsize)
	return FileSystem{
		Capacity: st.Blocks * block, Used: (st.Blocks - min(st.Bfree, st.Blocks)) * block, Available: st.Bavail * block,
		Inodes: st.Files, InodesUsed: st.Files - min(st.Ffree, st.Files), InodesFree: st.Ffree, Device: at.Dev,
	}, nil
}

// Tree is what a folder and everything below it take.
type Tree struct {
	// Bytes on the disk: blocks, so that sparse files count what they have; a file with several
	// names counts once.
	Bytes, Inodes uint64
}

// Tree measures a folder like `du -x`: it does not leave the folder's file system. Its cost grows
// with the number of files. What disappears meanwhile is left out, a folder that is not there is an
// fs.ErrNotExist.
func (m *Machine) Tree(path string) (Tree, error) {
	var tree Tree
	var device uint64
	seen := map[uint64]bool{} // inodes with several names
	err := filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
		if err == nil {
			var info os.FileInfo
			if info, err = entry.Info(); err == nil {
				return tree.add(name == path, info.Sys().(*syscall.Stat_t), &device, seen)
			}
		}
		if errors.Is(err, fs.ErrNotExist) && name != path {
			return nil
		}
		return err
	})
	return tree, err
}

func (t *Tree) add(top bool, st *syscall.Stat_t, device *uint64, seen map[uint64]bool) error {
	if top {
		*device = st.Dev
	}
	folder := st.Mode&syscall.S_IFMT == syscall.S_IFDIR
	if st.Dev != *device {
		if folder {
			return fs.SkipDir
		}
		return nil
	}
	if !folder && st.Nlink > 1 {
		if seen[st.Ino] {
			return nil
		}
		seen[st.Ino] = true
	}
	t.Bytes += uint64(st.Blocks) * 512
	t.Inodes++
	return nil
}
