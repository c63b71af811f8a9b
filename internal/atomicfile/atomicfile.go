// Package atomicfile writes small secret files so that a crash at any moment leaves either the old content or the
// new one: a temporary file in the same directory, fsync, rename, fsync of the directory.
//
// Keys, certificates, kubeconfigs and join tokens of the server and of the agent are written through it. It never
// decides what a file holds, and never widens a file's mode.
package atomicfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Mode is the mode of every file written: readable by its owner alone.
const Mode os.FileMode = 0o600

// marker is in the name of every temporary file.
const marker = ".tmp-"

// Write replaces the content of path, and returns once it is on disk.
func Write(path string, content []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+marker) // 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(f.Name()))
		}
	}()
	if _, err = f.Write(content); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// WriteIfChanged writes only if path does not hold content already, and says whether it did.
func WriteIfChanged(path string, content []byte) (bool, error) {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
		return false, Restrict(path)
	}
	return true, Write(path, content)
}

// Restrict takes away what group and others may do with path, if anything.
func Restrict(path string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	if fi.Mode().Perm()&0o077 == 0 {
		return nil
	}
	return os.Chmod(path, fi.Mode().Perm()&0o700)
}

// Dir makes dir if it is missing and closes it to everybody but its owner.
func Dir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return Restrict(dir)
}

// Sweep removes the temporary files that crashes have left in dir. Only the one process that writes to dir may
// call it, before it writes.
func Sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") && strings.Contains(e.Name(), marker) {
			errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
