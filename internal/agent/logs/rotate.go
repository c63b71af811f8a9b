package logs

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Endings of a log's other files, and how its rotated parts are dated: their names sort by age.
const (
	compressed = ".gz"
	unfinished = ".tmp"
	dated      = "20060102-150405"
)

// rotate makes room and compresses first, so that whatever fails leaves the log in one piece.
func (r *Rotator) rotate(ctx context.Context, log Log) error {
	names, err := parts(log.Path)
	if err != nil {
		return err
	}
	// The log about to be renamed and the new one are files too.
	drop, compress := sortOut(names, r.o.MaxFiles-2)
	for _, path := range drop {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove an old part: %w", err)
		}
	}
	for _, path := range compress {
		if err := gzipFile(path); err != nil {
			return fmt.Errorf("compress an old part: %w", err)
		}
	}
	rotated := log.Path + "." + r.now().UTC().Format(dated)
	if slices.Contains(names, rotated) {
		return nil // within the same second: the next look is early enough
	}
	if err := os.Rename(log.Path, rotated); err != nil {
		return err
	}
	if err := r.o.Runtime.ReopenContainerLog(ctx, log.ContainerID); err != nil {
		// The runtime goes on writing to the renamed file: give it its name back.
		return errors.Join(fmt.Errorf("the runtime does not open the log anew: %w", err), os.Rename(rotated, log.Path))
	}
	return nil
}

// parts are the other files of a log.
func parts(path string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), filepath.Base(path)+".") {
			names = append(names, filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
	return names, nil
}

// sortOut says which of a log's other files go, so that keep of them are left, and which of those
// that stay are to be compressed. Left-overs of an interrupted compression go in any case.
func sortOut(names []string, keep int) (drop, compress []string) {
	var whole []string
	for _, name := range names {
		if strings.HasSuffix(name, unfinished) || slices.Contains(names, name+compressed) {
			drop = append(drop, name)
			continue
		}
		whole = append(whole, name)
	}
	slices.Sort(whole) // the oldest first
	if excess := len(whole) - keep; excess > 0 {
		drop, whole = append(drop, whole[:excess]...), whole[excess:]
	}
	for _, name := range whole {
		if !strings.HasSuffix(name, compressed) {
			compress = append(compress, name)
		}
	}
	return drop, compress
}

// gzipFile replaces a file by its compressed form, which appears whole or not at all.
func gzipFile(path string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	temporary := path + unfinished
	out, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, info.Mode().Perm())
	if err != nil {
		return err
	}
	w := gzip.NewWriter(out)
	_, err = io.Copy(w, in)
	if err = errors.Join(err, w.Close(), out.Close()); err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	if err := os.Rename(temporary, path+compressed); err != nil {
		return err
	}
	return os.Remove(path)
}
