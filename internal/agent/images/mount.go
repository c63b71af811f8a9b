package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// Mounter shows images as folders, for the volumes of kind image. It uses containerd's
// own tool, so that it works with every version of containerd; the CRI learned it with 2.1.
type Mounter struct {
	// Ctr is the tool; "ctr" if empty.
	Ctr string
	// Socket of containerd.
	Socket string
}

// Mount mounts an image of the runtime read-only on the folder target, which also
// names the snapshot. One that an earlier life left behind is replaced.
func (m *Mounter) Mount(ctx context.Context, ref, target string) error {
	err := m.run(ctx, "images", "mount", ref, target)
	if err != nil && strings.Contains(err.Error(), "already exists") {
		if err := m.Unmount(ctx, target); err != nil {
			return err
		}
		err = m.run(ctx, "images", "mount", ref, target)
	}
	return err
}

// Unmount takes the mount and its snapshot away. It is fine if there is none.
func (m *Mounter) Unmount(ctx context.Context, target string) error {
	if err := m.run(ctx, "images", "unmount", "--rm", target); err != nil && !strings.Contains(err.Error(), "not found") {
		return err
	}
	// The lease that protects the snapshot would end by itself, a day after the mount.
	if err := m.run(ctx, "leases", "delete", target); err != nil && !strings.Contains(err.Error(), "not found") {
		return err
	}
	return nil
}

func (m *Mounter) run(ctx context.Context, args ...string) error {
	ctr := m.Ctr
	if ctr == "" {
		ctr = "ctr"
	}
	cmd := exec.CommandContext(ctx, ctr, append([]string{"-a", m.Socket, "-n", "k8s.io"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	switch err := cmd.Run(); {
	case errors.Is(err, exec.ErrNotFound):
		return fmt.Errorf("image volumes need %s, which comes with containerd: %w", ctr, err)
	case err != nil:
		return fmt.Errorf("%s %s: %w: %s", ctr, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return nil
}
