package volumes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	volumehelpers "k8s.io/component-helpers/storage/volume"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"github.com/everynode/everynode/internal/agent/objects"
)

// claim finds the volume that a claim is bound to.
func (m *Manager) claim(ctx context.Context, p *podVolumes, at layout, name, claimName string, readOnly bool) (Volume, error) {
	source, ok := m.o.Objects.(objects.PersistentVolumes)
	if !ok {
		return Volume{}, errors.New("claims cannot be read here: use hostPath or emptyDir")
	}
	pvc, err := source.PersistentVolumeClaim(ctx, p.pod.Namespace, claimName)
	if err != nil {
		return Volume{}, err
	}
	if err := usable(pvc, p.pod, name); err != nil {
		return Volume{}, fmt.Errorf("PersistentVolumeClaim %s/%s %w", pvc.Namespace, pvc.Name, err)
	}
	pv, err := source.PersistentVolume(ctx, pvc.Spec.VolumeName)
	if err != nil {
		return Volume{}, err
	}
	if err := m.reachable(pv); err != nil {
		return Volume{}, err
	}
	v, err := m.persistent(p, at, name, pv, pvc, readOnly)
	if err != nil {
		return Volume{}, fmt.Errorf("PersistentVolume %s %w", pv.Name, err)
	}
	return v, nil
}

// reachable says why a volume cannot be used on this node. The scheduler sees to it
// for most pods, but not for those that come with their node's name.
func (m *Manager) reachable(pv *corev1.PersistentVolume) error {
	if m.o.Node == nil {
		return nil
	}
	node := m.o.Node()
	if node == nil {
		return nil
	}
	if err := volumehelpers.CheckNodeAffinity(pv, node.Labels); err != nil {
		return fmt.Errorf("PersistentVolume %s is not for this node: its nodeAffinity does not match the labels of %s (%w)", pv.Name, node.Name, err)
	}
	return nil
}

// usable says why a claim cannot be mounted by a pod yet, or at all.
func usable(pvc *corev1.PersistentVolumeClaim, pod *corev1.Pod, volume string) error {
	switch {
	case pvc.DeletionTimestamp != nil && !slices.Contains(pvc.Finalizers, "kubernetes.io/pvc-protection"):
		return errors.New("is being deleted")
	case pvc.Status.Phase != corev1.ClaimBound || pvc.Spec.VolumeName == "":
		return fmt.Errorf("is not bound to a volume (%s): see its events", pvc.Status.Phase)
	case ephemeral(&pod.Spec, volume) && !metav1.IsControlledBy(pvc, pod):
		return errors.New("exists but was not made for this pod: delete or rename it")
	}
	return nil
}

func ephemeral(spec *corev1.PodSpec, volume string) bool {
	for i := range spec.Volumes {
		if spec.Volumes[i].Name == volume {
			return spec.Volumes[i].Ephemeral != nil
		}
	}
	return false
}

func (m *Manager) persistent(p *podVolumes, at layout, name string, pv *corev1.PersistentVolume, pvc *corev1.PersistentVolumeClaim, readOnly bool) (Volume, error) {
	if ref := pv.Spec.ClaimRef; ref == nil || ref.UID != pvc.UID {
		return Volume{}, fmt.Errorf("is not bound to claim %s/%s", pvc.Namespace, pvc.Name)
	}
	switch block := ptr.Deref(pvc.Spec.VolumeMode, corev1.PersistentVolumeFilesystem) == corev1.PersistentVolumeBlock; {
	case block && pv.Spec.Local != nil:
		return device(pv.Spec.Local.Path, readOnly)
	case block:
		return Volume{}, errors.New("has volumeMode Block, which local volumes only can have on this agent")
	case pv.Spec.HostPath != nil:
		v, err := hostPath(pv.Spec.HostPath.Path, pv.Spec.HostPath.Type)
		v.ReadOnly = readOnly
		return v, err
	case pv.Spec.Local != nil:
		return m.local(p, at, name, pv, readOnly)
	}
	return Volume{}, errors.New("is of a kind that this agent cannot mount: local and hostPath volumes are supported")
}

// local hands out a folder that an administrator prepared, or the file system of a disk.
func (m *Manager) local(p *podVolumes, at layout, name string, pv *corev1.PersistentVolume, readOnly bool) (Volume, error) {
	path := pv.Spec.Local.Path
	if slices.Contains(strings.Split(path, "/"), "..") {
		return Volume{}, fmt.Errorf("has path %q, which must not have .. in it", path)
	}
	info, err := os.Stat(path)
	if err != nil {
		return Volume{}, fmt.Errorf("has no folder on this node: %w; create it, or check the volume's nodeAffinity", err)
	}
	switch kind := kindOf(info.Mode()); kind {
	case "directory":
	case "block device":
		disk, err := filepath.EvalSymlinks(path)
		if err != nil {
			return Volume{}, fmt.Errorf("has no device on this node: %w", err)
		}
		path = at.volume("local-volume", name)
		if err := m.mountDisk(path, disk, pv, readOnly); err != nil {
			return Volume{}, err
		}
	default:
		return Volume{}, fmt.Errorf("names %s, which is a %s; a folder or a block device is needed", path, kind)
	}
	v := Volume{Path: path, ReadOnly: readOnly}
	gid := fsGroup(p.pod)
	if gid == nil || readOnly {
		return v, nil
	}
	// Once a pod: going through all files again at each restart could take long.
	if at.isReady(name) {
		return v, nil
	}
	policy := p.pod.Spec.SecurityContext.FSGroupChangePolicy
	if policy == nil || *policy != corev1.FSGroupChangeOnRootMismatch || !belongsToGroup(path, *gid) {
		if err := giveToGroup(path, *gid, true); err != nil {
			return Volume{}, err
		}
	}
	return v, at.setReady(name)
}

// device hands out a block device that an administrator prepared.
func device(path string, readOnly bool) (Volume, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return Volume{}, fmt.Errorf("has no device on this node: %w", err)
	}
	info, err := os.Stat(real)
	if err != nil {
		return Volume{}, fmt.Errorf("has no device on this node: %w", err)
	}
	if kind := kindOf(info.Mode()); kind != "block device" {
		return Volume{}, fmt.Errorf("has volumeMode Block and names %s, which is a %s; a block device is needed", path, kind)
	}
	return Volume{Path: real, ReadOnly: readOnly, Device: true}, nil
}

// Devices returns the block devices that the runtime has to put into a container.
func Devices(c *corev1.Container, vols map[string]Volume) ([]*runtimeapi.Device, error) {
	var list []*runtimeapi.Device
	for _, d := range c.VolumeDevices {
		v, ok := vols[d.Name]
		if !ok || !v.Device {
			return nil, fmt.Errorf("volumeDevice %q of container %q: the volume is no block device: its claim needs volumeMode: Block", d.Name, c.Name)
		}
		permissions := "mrw"
		if v.ReadOnly {
			permissions = "mr"
		}
		list = append(list, &runtimeapi.Device{HostPath: v.Path, ContainerPath: d.DevicePath, Permissions: permissions})
	}
	return list, nil
}
