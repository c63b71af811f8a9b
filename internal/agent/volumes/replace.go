package volumes

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// payload is the files of a volume by path.
type payload map[string]file

type file struct {
	data []byte
	mode int32
	user *int64
}

const (
	current = "..data"     // symlink to the folder with the data
	next    = "..data_tmp" // its successor, about to be renamed over it
)

// replace makes the visible files of dir be those of files, all at once:
//
//	dir/..2026_01_02_15_04_05.123/key   the data
//	dir/..data -> ..2026_01_02_…        swapped by one rename
//	dir/key    -> ..data/key            what programs open
//
// A program that has a file open keeps reading the old one; one that opens ..data
// first and then files in it never sees a mixture; inotify on ..data tells of the
// swap. own is called when the data is written but not yet visible.
//
// A kill leaves the old files or the new; what else is left over, the next call
// removes. Nothing is written if nothing changed.
func replace(dir string, files payload, own func() error) error {
	files, err := files.clean()
	if err != nil {
		return err
	}
	before, err := os.Readlink(filepath.Join(dir, current))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	now := before
	if before == "" || !files.same(filepath.Join(dir, before)) {
		if now, err = swap(dir, files, own); err != nil {
			return err
		}
	}
	if err := errors.Join(link(dir, files), unlink(dir, files)); err != nil {
		return err
	}
	if before != "" && before != now {
		time.Sleep(lookup)
	}
	return sweep(dir, now)
}

// lookup is how long old data outlives the swap: the kernel may have resolved
// ..data for someone just before, and not yet found the file in it.
const lookup = 10 * time.Millisecond

// clean returns the files under clean paths, or an error if one leads astray. What
// begins with ".." is ours.
func (p payload) clean() (payload, error) {
	out := make(payload, len(p))
	for path, f := range p {
		clean, err := relative(path)
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(clean, "..") || clean == "." {
			return nil, fmt.Errorf("the path %q must not start with .. or be empty", path)
		}
		out[clean] = f
	}
	return out, nil
}

// same says whether the folder holds exactly these files.
func (p payload) same(dir string) bool {
	found := 0
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		want, known := p[rel]
		have, err := os.ReadFile(path)
		if err != nil || !known || !bytes.Equal(have, want.data) {
			return fs.ErrInvalid
		}
		found++
		return nil
	})
	return err == nil && found == len(p)
}

func swap(dir string, files payload, own func() error) (string, error) {
	fresh, err := os.MkdirTemp(dir, time.Now().UTC().Format("..2006_01_02_15_04_05."))
	if err != nil {
		return "", err
	}
	name := filepath.Base(fresh)
	err = errors.Join(os.Chmod(fresh, 0o755), files.write(fresh))
	if err == nil {
		err = own()
	}
	if err == nil {
		err = point(dir, name)
	}
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(fresh))
	}
	return name, nil
}

func (p payload) write(dir string) error {
	for path, f := range p {
		full := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o777); err != nil {
			return err
		}
		if err := os.WriteFile(full, f.data, 0o600); err != nil {
			return err
		}
		if f.user != nil {
			if err := os.Lchown(full, int(*f.user), -1); err != nil {
				return err
			}
		}
		// Not by WriteFile: the umask would have its say.
		if err := os.Chmod(full, fs.FileMode(f.mode).Perm()|special(f.mode)); err != nil {
			return err
		}
	}
	return nil
}

// special turns the kernel's bits above the permissions into Go's.
func special(mode int32) fs.FileMode {
	var out fs.FileMode
	for bit, set := range map[int32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if mode&bit != 0 {
			out |= set
		}
	}
	return out
}

func point(dir, name string) error {
	tmp := filepath.Join(dir, next)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(name, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, current))
}

// link makes the files visible. What is in the way (a mount point for another
// volume, say) stays.
func link(dir string, files payload) error {
	for path := range files {
		name := top(path)
		err := os.Symlink(filepath.Join(current, name), filepath.Join(dir, name))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// unlink removes links to files that are gone.
func unlink(dir string, files payload) error {
	wanted := map[string]bool{}
	for path := range files {
		wanted[top(path)] = true
	}
	return each(dir, func(name, full string) error {
		if target, _ := os.Readlink(full); wanted[name] || target != filepath.Join(current, name) {
			return nil
		}
		return os.Remove(full)
	})
}

// sweep removes data that is not current.
func sweep(dir, now string) error {
	return each(dir, func(name, full string) error {
		if name == current || name == now || !strings.HasPrefix(name, "..") {
			return nil
		}
		return os.RemoveAll(full)
	})
}

func each(dir string, do func(name, full string) error) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, do(e.Name(), filepath.Join(dir, e.Name())))
	}
	return err
}

// top is the first element of a path.
func top(path string) string {
	name, _, _ := strings.Cut(path, "/")
	return name
}
