package manifests

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
	"k8s.io/klog/v2"
)

const (
	// rescanEvery finds what the kernel does not tell of: files behind links, other machines' writes.
	rescanEvery = 20 * time.Second
	// A file is often written in several steps: wait until it has been left alone, but not for long.
	settled     = 50 * time.Millisecond
	settledMost = 500 * time.Millisecond
)

// Follow calls take with what the folder holds: first as it is now, then after each change, until
// ctx ends.
func (f *Folder) Follow(ctx context.Context, take func(Reading)) {
	log := klog.FromContext(ctx).WithValues("folder", f.dir)
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		log.Error(err, "The folder of static pods cannot be watched; it is looked at regularly", "every", rescanEvery)
		watcher = &fsnotify.Watcher{} // whose channels never speak
	} else {
		defer func() { _ = watcher.Close() }()
	}
	told := ""
	var taken *Reading
	for {
		if err == nil {
			f.watch(watcher) // before reading, or a change in between would be missed
		}
		reading, readErr := f.Read()
		switch {
		case readErr == nil:
			told = ""
			if taken == nil || !taken.same(reading) {
				taken = &reading
				take(reading)
			}
		case told != readErr.Error(): // what was known goes on
			told = readErr.Error()
			log.Error(readErr, "Static pods stay as they are")
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(rescanEvery):
		case _, open := <-watcher.Events:
			if open {
				settle(ctx, watcher)
			}
		case err := <-watcher.Errors:
			log.V(2).Info("Watching the folder of static pods failed", "err", err)
		}
	}
}

// same: pods of files that have not changed are the very same ones.
func (r *Reading) same(other Reading) bool {
	return slices.Equal(r.Pods, other.Pods) && slices.Equal(r.Problems, other.Problems) && slices.Equal(r.Unread, other.Unread)
}

// watch makes sure that the folder is watched, or the one in which it would appear.
func (f *Folder) watch(w *fsnotify.Watcher) {
	at := f.dir
	for {
		if info, err := os.Stat(at); err == nil && info.IsDir() && w.Add(at) == nil {
			break
		}
		if at == filepath.Dir(at) {
			return
		}
		at = filepath.Dir(at)
	}
	for _, other := range w.WatchList() {
		if other != at {
			_ = w.Remove(other)
		}
	}
}

// settle waits until the folder has been left alone for a moment.
func settle(ctx context.Context, w *fsnotify.Watcher) {
	most := time.After(settledMost)
	for {
		select {
		case <-ctx.Done():
			return
		case <-most:
			return
		case <-time.After(settled):
			return
		case <-w.Events:
		}
	}
}
