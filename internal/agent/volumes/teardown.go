package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/agent/objects"
)

// Teardown takes away everything under the pod's folder: mounts first, then files.
// The pod's containers must be gone. It may be called again, also for a pod that
// never had volumes.
func (m *Manager) Teardown(ctx context.Context, uid types.UID) error {
	if err := segment(string(uid)); err != nil {
		return fmt.Errorf("the pod's uid %w", err)
	}
	p := m.lock(uid)
	defer p.mu.Unlock()
	p.pod = nil // whoever refreshes it after us finds nothing to do
	if err := m.remove(ctx, uid); err != nil {
		return fmt.Errorf("removing the volumes of pod %s: %w", uid, err)
	}
	m.forget(p)
	if r, ok := m.o.Objects.(objects.Registrar); ok {
		r.UnregisterUID(uid)
	}
	return nil
}

func (m *Manager) remove(ctx context.Context, uid types.UID) error {
	root, err := filepath.EvalSymlinks(m.o.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		root, err = filepath.Abs(root)
	}
	if err != nil {
		return err
	}
	dir := layout{root, uid}.pod()
	if info, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return nil // not ours if it is no folder
	}
	if err := m.unmountImages(ctx, dir); err != nil {
		return err
	}
	if err := unmountUnder(dir); err != nil {
		return err
	}
	return removeTree(root, string(uid))
}

// Orphans tears down what pods left behind that known does not know: pods that went
// while the agent was away. Pods that were set up in this life are never orphans.
func (m *Manager) Orphans(known func(types.UID) bool) {
	entries, err := os.ReadDir(m.o.Root)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			klog.ErrorS(err, "The folder of the pods cannot be read; volumes of pods that are gone stay", "folder", m.o.Root)
		}
		return
	}
	for _, e := range entries {
		uid := types.UID(e.Name())
		m.mu.Lock()
		_, ours := m.pods[uid]
		m.mu.Unlock()
		if ours || !e.IsDir() || known(uid) {
			continue
		}
		if err := m.Teardown(context.Background(), uid); err != nil {
			klog.ErrorS(err, "Volumes of a pod that is gone stay; the next look tries again", "uid", uid)
			continue
		}
		klog.InfoS("Removed volumes of a pod that is gone", "uid", uid)
	}
}
