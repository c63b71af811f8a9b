package eviction

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/everynode/everynode/internal/decide/podlife"
)

// Files are what something takes of a file system.
type Files struct{ Bytes, Inodes int64 }

func (f Files) plus(g Files) Files { return Files{f.Bytes + g.Bytes, f.Inodes + g.Inodes} }

// ContainerUsage is what a container uses.
type ContainerUsage struct {
	// Memory is its working set.
	Memory int64
	// Logs and Root are its logs and what it wrote into its own layer.
	Logs, Root Files
}

// Usage is what a pod uses.
type Usage struct {
	// Memory is its working set.
	Memory, Processes int64
	// Containers by name.
	Containers map[string]ContainerUsage
	// Volumes that the node keeps on its disk for the pod, by name.
	Volumes map[string]Files
	// Ephemeral is what counts against its limit of ephemeral storage, in bytes.
	Ephemeral int64
}

// Pod is a pod that runs and, if that could be measured, what it uses.
type Pod struct {
	*corev1.Pod
	Usage *Usage
}

// Layout tells how the node's disks are divided.
type Layout struct {
	// ImagesApart: images and the containers' own layers have a file system of their own.
	ImagesApart bool
}

// Rank orders pods by who should go first when a signal is short, as the kubelet does: who uses
// more than was asked for, then who is least important, then who uses most beyond its request.
// Pods that could not be measured come first. The list is sorted in place.
func (l Layout) Rank(s Signal, pods []Pod) {
	slices.SortStableFunc(pods, func(a, b Pod) int {
		if a.Usage == nil || b.Usage == nil {
			return cmp.Or(trueFirst(a.Usage == nil, b.Usage == nil), cmp.Compare(priority(a), priority(b)), byName(a, b))
		}
		if s == PIDAvailable {
			return cmp.Or(cmp.Compare(priority(a), priority(b)), cmp.Compare(b.Usage.Processes, a.Usage.Processes), byName(a, b))
		}
		over, overB := l.used(s, a)-request(s, a), l.used(s, b)-request(s, b)
		return cmp.Or(trueFirst(over > 0, overB > 0), cmp.Compare(priority(a), priority(b)), cmp.Compare(overB, over), byName(a, b))
	})
}

func byName(a, b Pod) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.UID, b.UID))
}

func trueFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func priority(p Pod) int32 {
	if p.Spec.Priority != nil {
		return *p.Spec.Priority
	}
	return 0
}

// used is what the pod takes of what is short.
func (l Layout) used(s Signal, p Pod) int64 {
	if s.Resource() == corev1.ResourceMemory {
		return p.Usage.Memory
	}
	files := l.files(s, p)
	if s.Resource() == inodes {
		return files.Inodes
	}
	return files.Bytes
}

// files are those of the pod on the file system that a signal is about.
func (l Layout) files(s Signal, p Pod) Files {
	onImages := s == ImageFsAvailable || s == ImageFsInodesFree
	var sum Files
	for _, c := range p.Usage.Containers {
		if !l.ImagesApart || onImages {
			sum = sum.plus(c.Root)
		}
		if !l.ImagesApart || !onImages {
			sum = sum.plus(c.Logs)
		}
	}
	if !l.ImagesApart || !onImages {
		for _, v := range p.Usage.Volumes {
			sum = sum.plus(v)
		}
	}
	return sum
}

func request(s Signal, p Pod) int64 {
	switch name := s.Resource(); name {
	case corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
		q := podlife.Request(p.Pod, name)
		return q.Value()
	}
	return 0
}
