package volumes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/moby/sys/mountinfo"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// ImageMounter shows images as folders. *images.Mounter is the real one.
type ImageMounter interface {
	Mount(ctx context.Context, ref, target string) error
	Unmount(ctx context.Context, target string) error
}

// ImageVolumes are the image volumes that the pod's containers mount. Setup leaves
// them out: their images have to be pulled first, and then MountImage is called.
func ImageVolumes(pod *corev1.Pod) []*corev1.Volume {
	used := mounted(&pod.Spec)
	var list []*corev1.Volume
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; v.Image != nil && used[v.Name] {
			list = append(list, v)
		}
	}
	return list
}

// MountImage shows an image of the runtime as a volume of a pod. Once there it stays
// as it is, whatever its name comes to mean.
func (m *Manager) MountImage(ctx context.Context, uid types.UID, volume, ref string) (Volume, error) {
	if m.o.Images == nil {
		return Volume{}, fmt.Errorf("volume %q: image volumes need containerd on this node", volume)
	}
	if err := errors.Join(segment(string(uid)), segment(volume)); err != nil {
		return Volume{}, err
	}
	p := m.lock(uid)
	defer p.mu.Unlock()
	root, err := m.root()
	if err != nil {
		return Volume{}, err
	}
	dir := layout{root, uid}.volume("image", volume)
	ready := Volume{Path: dir, ReadOnly: true}
	if there, err := mountinfo.Mounted(dir); err == nil && there {
		return ready, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Volume{}, fmt.Errorf("volume %q: %w", volume, err)
	}
	if err := m.o.Images.Mount(ctx, ref, dir); err != nil {
		return Volume{}, fmt.Errorf("volume %q: %w", volume, err)
	}
	return ready, nil
}

// unmountImages takes the pod's images away, and what the runtime keeps for them.
func (m *Manager) unmountImages(ctx context.Context, pod string) error {
	dirs, _ := filepath.Glob(filepath.Join(pod, "volumes", "kubernetes.io~image", "*"))
	var errs []error
	for _, dir := range dirs {
		if m.o.Images != nil {
			errs = append(errs, m.o.Images.Unmount(ctx, dir))
		}
	}
	return errors.Join(errs...)
}
