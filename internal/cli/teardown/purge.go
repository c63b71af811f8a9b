package teardown

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/everynode/everynode/internal/cli/layout"
)

// marks are files of which an everynode data directory has at least one. Purge removes nothing
// from a directory without: a slip in --data-dir must not cost a home directory.
var marks = []string{"supervisor.lock", "supervisor.json", "admin.kubeconfig", "join-token", "agent"}

// Purge removes the data, the run directory and the logs of the pods that ran here. Sweep must
// have been there before: with a mount left below the data it refuses, because removing files
// would reach through the mount.
func Purge(l layout.Layout) error {
	entries, err := os.ReadDir(l.DataDir)
	if errors.Is(err, os.ErrNotExist) {
		return os.RemoveAll(l.RunDir)
	}
	if err != nil {
		return fmt.Errorf("purge: %w", err)
	}
	if len(entries) > 0 && !marked(l.DataDir) {
		return fmt.Errorf("purge: %s does not look like everynode's data; nothing removed; give the right --data-dir", l.DataDir)
	}
	mounts, err := mountsBelow(l.DataDir, l.RunDir)
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		return fmt.Errorf("purge: still mounted: %s; nothing removed; unmount it and try again", strings.Join(mounts, ", "))
	}
	return errors.Join(purgeLogs(l, layout.PodLogDir, layout.ContainerLogDir), empty(l.DataDir), empty(l.RunDir))
}

func marked(dir string) bool {
	for _, name := range marks {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return true
		}
	}
	return false
}

// empty removes a directory; one that is a mount of its own stays, without content.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, unix.EBUSY) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// purgeLogs removes the log directories of our pods, and the links to them.
func purgeLogs(l layout.Layout, podLogs, containerLogs string) error {
	dirs, err := recordedLogs(l)
	if err != nil {
		return err
	}
	volumes, _ := os.ReadDir(l.PodVolumes()) // none: nothing to add
	for _, uid := range volumes {
		found, _ := filepath.Glob(filepath.Join(podLogs, "*_"+uid.Name()))
		for _, dir := range found {
			dirs[filepath.Base(dir)] = true
		}
	}
	var errs []error
	links, _ := os.ReadDir(containerLogs)
	for _, link := range links {
		path := filepath.Join(containerLogs, link.Name())
		target, err := os.Readlink(path)
		rel, inside := strings.CutPrefix(target, podLogs+"/")
		pod, _, _ := strings.Cut(rel, "/")
		if err == nil && inside && dirs[pod] {
			errs = append(errs, os.Remove(path))
		}
	}
	for dir := range dirs {
		errs = append(errs, os.RemoveAll(filepath.Join(podLogs, dir)))
	}
	removeEmpty(containerLogs, podLogs)
	return errors.Join(errs...)
}
