package volumes

import (
	"fmt"
	"os"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"
)

// emptyDir makes a folder that lives as long as the pod, on the node's disk or in
// memory. The disk's size limit is not enforced here: eviction watches it.
func emptyDir(p *podVolumes, at layout, v *corev1.Volume) (Volume, error) {
	dir := at.volume("empty-dir", v.Name)
	made := Volume{Path: dir}
	switch medium := v.EmptyDir.Medium; medium {
	case corev1.StorageMediumDefault:
		// Once ready, its mode and owner are the containers' business.
		if at.isReady(v.Name) && isFolder(dir) {
			return made, nil
		}
		if err := makeOpenFolder(dir); err != nil {
			return Volume{}, err
		}
	case corev1.StorageMediumMemory:
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return Volume{}, err
		}
		fresh, err := mountTmpfs(dir, memorySize(p, v.EmptyDir))
		if err != nil {
			return Volume{}, err
		}
		if at.isReady(v.Name) && !fresh {
			return made, nil
		}
	default:
		return Volume{}, fmt.Errorf("emptyDir medium %q is not supported by this agent: use Memory or leave it out", medium)
	}
	if gid := fsGroup(p.pod); gid != nil {
		if err := giveToGroup(dir, *gid, true); err != nil {
			return Volume{}, err
		}
	}
	return made, at.setReady(v.Name)
}

func isFolder(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.IsDir()
}

// makeOpenFolder makes a folder that everyone may use, whatever the umask is.
func makeOpenFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil || info.Mode().Perm() == 0o777 {
		return err
	}
	return os.Chmod(dir, info.Mode()|0o777)
}

// memorySize is the least of what the node can give, the pod may use, and the
// volume asks for; 0 if none of them is known.
func memorySize(p *podVolumes, e *corev1.EmptyDirVolumeSource) int64 {
	size := p.facts.Allocatable.Memory().Value()
	if limit := memoryLimit(p.pod); limit > 0 && (size == 0 || limit < size) {
		size = limit
	}
	if e.SizeLimit != nil {
		if limit := e.SizeLimit.Value(); limit > 0 && (size == 0 || limit < size) {
			size = limit
		}
	}
	return size
}

// memoryLimit is what all containers together may use; 0 if one of them has no limit.
func memoryLimit(pod *corev1.Pod) int64 {
	limited := true
	limits := resource.PodLimits(pod, resource.PodResourcesOptions{
		ContainerFn: func(list corev1.ResourceList, _ resource.ContainerType) {
			limited = limited && !list.Memory().IsZero()
		},
	})
	if !limited && (pod.Spec.Resources == nil || pod.Spec.Resources.Limits.Memory().IsZero()) {
		return 0
	}
	return limits.Memory().Value()
}
