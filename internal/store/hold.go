package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// growth is by how much the database's file becomes longer at once (bbolt's AllocSize).
const growth = 16 << 20

// holder keeps blocks of the disk for the database. Its file has holes, and a write into one, or behind
// the end, fails where others fill the disk faster than the guard looks; etcd ends then.
type holder struct {
	file string
	held os.FileInfo // as it was when blocks were last kept for it
}

func newHolder(dir string) *holder { return &holder{file: filepath.Join(dir, "member", "snap", "db")} }

// hold keeps blocks for all of the file, and for growing once more. It costs one stat as long as the
// file is the same.
func (h *holder) hold() error {
	now, err := os.Stat(h.file)
	if err != nil || h.held != nil && os.SameFile(h.held, now) && h.held.Size() == now.Size() {
		return err
	}
	f, err := os.OpenFile(h.file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, now.Size()+growth)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("keep room for the database: %w", err)
	}
	h.held = now
	return nil
}
