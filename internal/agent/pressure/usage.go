package pressure

import (
	corev1 "k8s.io/api/core/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/ptr"

	"github.com/everynode/everynode/internal/decide/eviction"
)

// withUsage puts to each pod what was measured of it. The summary may be nil.
func withUsage(pods []*corev1.Pod, summary *statsapi.Summary) []eviction.Pod {
	list := make([]eviction.Pod, len(pods))
	for i, pod := range pods {
		list[i].Pod = pod
	}
	if summary == nil {
		return list
	}
	byUID := map[string]*statsapi.PodStats{}
	for i := range summary.Pods {
		byUID[summary.Pods[i].PodRef.UID] = &summary.Pods[i]
	}
	for i := range list {
		if s := byUID[string(list[i].UID)]; s != nil {
			list[i].Usage = usage(list[i].Pod, s)
		}
	}
	return list
}

func usage(pod *corev1.Pod, s *statsapi.PodStats) *eviction.Usage {
	u := &eviction.Usage{
		Memory: workingSet(s.Memory), Ephemeral: files(s.EphemeralStorage).Bytes,
		Containers: map[string]eviction.ContainerUsage{}, Volumes: map[string]eviction.Files{},
	}
	if s.ProcessStats != nil {
		u.Processes = number(s.ProcessStats.ProcessCount)
	}
	for i := range s.Containers {
		c := &s.Containers[i]
		u.Containers[c.Name] = eviction.ContainerUsage{Memory: workingSet(c.Memory), Logs: files(c.Logs), Root: files(c.Rootfs)}
	}
	onDisk := map[string]bool{}
	for _, v := range pod.Spec.Volumes {
		onDisk[v.Name] = v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumDefault || v.ConfigMap != nil || v.DownwardAPI != nil
	}
	for i := range s.VolumeStats {
		if v := &s.VolumeStats[i]; onDisk[v.Name] {
			u.Volumes[v.Name] = files(&v.FsStats)
		}
	}
	return u
}

func workingSet(m *statsapi.MemoryStats) int64 {
	if m == nil {
		return 0
	}
	return number(m.WorkingSetBytes)
}

func files(fs *statsapi.FsStats) eviction.Files {
	if fs == nil {
		return eviction.Files{}
	}
	return eviction.Files{Bytes: number(fs.UsedBytes), Inodes: number(fs.InodesUsed)}
}

func number(n *uint64) int64 { return int64(ptr.Deref(n, 0)) }
