package volumes

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// layout is where the files of one pod lie, as the kubelet lays them out:
//
//	ROOT/UID/volumes/kubernetes.io~KIND/NAME        a volume
//	ROOT/UID/volume-subpaths/NAME/CONTAINER/INDEX   a sub path, bound here
//	ROOT/UID/ready/NAME                             this volume's ownership is done
//
// Every part comes from checkNames or is a constant, so no join can leave ROOT.
type layout struct {
	root string
	uid  types.UID
}

func (l layout) pod() string { return filepath.Join(l.root, string(l.uid)) }

func (l layout) volume(kind, name string) string {
	return filepath.Join(l.pod(), "volumes", "kubernetes.io~"+kind, name)
}

func (l layout) subPath(volume, container string, index int) string {
	return filepath.Join(l.pod(), "volume-subpaths", volume, container, strconv.Itoa(index))
}

func (l layout) isReady(name string) bool {
	_, err := os.Lstat(filepath.Join(l.pod(), "ready", name))
	return err == nil
}

func (l layout) setReady(name string) error {
	dir := filepath.Join(l.pod(), "ready")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name), nil, 0o600)
}

// root makes the folder of all pods and returns it without symlinks, which the
// kernel's list of mounts never has.
func (m *Manager) root() (string, error) {
	if err := os.MkdirAll(m.o.Root, 0o750); err != nil {
		return "", fmt.Errorf("making the folder of the pods: %w", err)
	}
	real, err := filepath.EvalSymlinks(m.o.Root)
	if err != nil {
		return "", fmt.Errorf("finding the folder of the pods: %w", err)
	}
	return filepath.Abs(real)
}

// checkNames refuses a pod whose names would lead out of its folder. The API
// server never lets one through; a manifest file on the node may say anything.
func checkNames(pod *corev1.Pod) error {
	if err := segment(string(pod.UID)); err != nil {
		return fmt.Errorf("the pod's uid %w", err)
	}
	for i := range pod.Spec.Volumes {
		if err := segment(pod.Spec.Volumes[i].Name); err != nil {
			return fmt.Errorf("the volume name %w", err)
		}
	}
	return nil
}

// segment refuses what is not one plain element of a path.
func segment(s string) error {
	if s == "" || s == "." || s == ".." || len(s) > 255 || strings.ContainsAny(s, "/\x00") {
		return fmt.Errorf("%q cannot be the name of a file", s)
	}
	return nil
}

// relative refuses what is not a path below a folder, and returns it cleaned.
func relative(path string) (string, error) {
	switch {
	case path == "":
		return "", fmt.Errorf("the path is empty")
	case len(path) > 4096:
		return "", fmt.Errorf("the path has %d bytes; 4096 are the most", len(path))
	case strings.HasPrefix(path, "/"):
		return "", fmt.Errorf("the path %q must not start with /", path)
	case strings.Contains(path, "\x00"):
		return "", fmt.Errorf("the path %q has a zero byte", path)
	}
	parts := strings.Split(path, "/")
	if slices.Contains(parts, "..") {
		return "", fmt.Errorf("the path %q must not have .. in it", path)
	}
	for _, part := range parts {
		if len(part) > 255 {
			return "", fmt.Errorf("the path %q has a name of more than 255 bytes", path)
		}
	}
	return filepath.Clean(path), nil
}

// mounted returns the names of the volumes that some container mounts; the others
// need not be there, as with the kubelet.
func mounted(spec *corev1.PodSpec) map[string]bool {
	out := map[string]bool{}
	for c := range containers(spec) {
		for _, mount := range c.VolumeMounts {
			out[mount.Name] = true
		}
		for _, device := range c.VolumeDevices {
			out[device.Name] = true
		}
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.FileKeyRef != nil {
				out[e.ValueFrom.FileKeyRef.VolumeName] = true
			}
		}
	}
	return out
}

// containers visits every container of a pod, whatever its kind.
func containers(spec *corev1.PodSpec) func(yield func(*corev1.Container) bool) {
	return func(yield func(*corev1.Container) bool) {
		for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
			for i := range list {
				if !yield(&list[i]) {
					return
				}
			}
		}
		for i := range spec.EphemeralContainers {
			c := corev1.Container(spec.EphemeralContainers[i].EphemeralContainerCommon)
			if !yield(&c) {
				return
			}
		}
	}
}
