package stats

import (
	"context"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/ptr"

	"github.com/everynode/everynode/internal/agent/measure"
)

// walkEvery is how often the files of a pod's volumes and logs are counted at most: that costs the
// more the more there are.
const walkEvery = time.Minute

// storage is what file systems have and what the runtime keeps on them.
type storage struct {
	at    time.Time
	node  *statsapi.FsStats
	image *statsapi.FsStats
	// layers are what containers wrote into their own, by ID.
	layers map[string]*runtimeapi.FilesystemUsage
}

// podTrees are what the files of one pod take.
type podTrees struct {
	at      time.Time
	volumes []statsapi.VolumeStats
	logs    map[string]*statsapi.FsStats // by container
	// ephemeral is what counts against the pod's limit of ephemeral storage, without the layers.
	ephemeral measure.Tree
}

// addStorage fills in everything about file systems. What cannot be measured is left out.
func (p *Provider) addStorage(ctx context.Context, s *snapshot, into *statsapi.Summary) {
	if p.storage == nil || time.Since(p.storage.at) >= Fresh {
		p.storage = p.readStorage(ctx)
	}
	st := p.storage
	into.Node.Fs = st.node
	into.Node.Runtime = &statsapi.RuntimeStats{ImageFs: st.image, ContainerFs: st.image}
	p.forgetTrees(s)
	for i, of := range s.pods {
		trees := p.treesOf(ctx, of.pod)
		pod := &into.Pods[i]
		pod.VolumeStats = trees.volumes
		total := trees.ephemeral
		for j, c := range of.containers {
			container := &pod.Containers[j]
			container.Logs = trees.logs[c.name]
			if layer := st.layers[c.id]; layer != nil {
				used := measure.Tree{Bytes: layer.GetUsedBytes().GetValue(), Inodes: layer.GetInodesUsed().GetValue()}
				container.Rootfs = within(st.image, used, time.Unix(0, layer.Timestamp))
				total.Bytes, total.Inodes = total.Bytes+used.Bytes, total.Inodes+used.Inodes
			}
		}
		pod.EphemeralStorage = within(st.node, total, trees.at)
	}
}

func (p *Provider) readStorage(ctx context.Context) *storage {
	st := &storage{at: time.Now(), layers: map[string]*runtimeapi.FilesystemUsage{}}
	log := klog.FromContext(ctx)
	if fs, err := p.o.Machine.FileSystem(p.o.DataDir); err != nil {
		log.Error(err, "Cannot measure the node's file system")
	} else {
		st.node = fileSystem(fs, st.at)
	}
	if info, err := p.o.Images.ImageFsInfo(ctx); err != nil {
		log.V(2).Info("The runtime does not say what images take", "err", err)
	} else if len(info.GetImageFilesystems()) > 0 {
		st.image = p.imageFileSystem(info.GetImageFilesystems()[0])
	}
	list, err := p.o.Runtime.ListContainerStats(ctx, &runtimeapi.ContainerStatsFilter{})
	if err != nil {
		log.V(2).Info("The runtime does not say what containers have written", "err", err)
	}
	for _, c := range list {
		if c.GetWritableLayer() != nil {
			st.layers[c.GetAttributes().GetId()] = c.GetWritableLayer()
		}
	}
	return st
}

func (p *Provider) imageFileSystem(usage *runtimeapi.FilesystemUsage) *statsapi.FsStats {
	at := time.Unix(0, usage.Timestamp)
	s := &statsapi.FsStats{Time: metav1.NewTime(at), UsedBytes: ptr.To(usage.GetUsedBytes().GetValue()), InodesUsed: ptr.To(usage.GetInodesUsed().GetValue())}
	if fs, err := p.o.Machine.FileSystem(usage.GetFsId().GetMountpoint()); err == nil {
		s.CapacityBytes, s.AvailableBytes, s.Inodes, s.InodesFree = &fs.Capacity, &fs.Available, &fs.Inodes, &fs.InodesFree
	}
	return s
}

func fileSystem(fs measure.FileSystem, at time.Time) *statsapi.FsStats {
	return &statsapi.FsStats{
		Time: metav1.NewTime(at), CapacityBytes: &fs.Capacity, AvailableBytes: &fs.Available, UsedBytes: &fs.Used,
		Inodes: &fs.Inodes, InodesFree: &fs.InodesFree, InodesUsed: &fs.InodesUsed,
	}
}

// within is what something takes of a file system.
func within(fs *statsapi.FsStats, used measure.Tree, at time.Time) *statsapi.FsStats {
	s := &statsapi.FsStats{Time: metav1.NewTime(at), UsedBytes: &used.Bytes, InodesUsed: &used.Inodes}
	if fs != nil {
		s.CapacityBytes, s.AvailableBytes, s.Inodes, s.InodesFree = fs.CapacityBytes, fs.AvailableBytes, fs.Inodes, fs.InodesFree
	}
	return s
}

// forgetTrees drops those of pods that are gone.
func (p *Provider) forgetTrees(s *snapshot) {
	here := make(map[types.UID]bool, len(s.pods))
	for _, of := range s.pods {
		here[of.pod.UID] = true
	}
	for uid := range p.trees {
		if !here[uid] {
			delete(p.trees, uid)
		}
	}
}

// treesOf walks through a pod's files, unless that was done not long ago or the caller has given up.
func (p *Provider) treesOf(ctx context.Context, pod *corev1.Pod) podTrees {
	known, ok := p.trees[pod.UID]
	if ok && time.Since(known.at) < walkEvery || ctx.Err() != nil {
		return known
	}
	trees := podTrees{at: time.Now(), logs: map[string]*statsapi.FsStats{}}
	for i := range pod.Spec.Volumes {
		p.addVolume(&trees, pod, &pod.Spec.Volumes[i])
	}
	p.addLogs(&trees, pod)
	p.trees[pod.UID] = trees
	return trees
}

// addVolume measures a volume that the node itself keeps for the pod, whatever its kind.
func (p *Provider) addVolume(trees *podTrees, pod *corev1.Pod, volume *corev1.Volume) {
	found, err := filepath.Glob(filepath.Join(p.o.VolumesDir, string(pod.UID), "volumes", "kubernetes.io~*", volume.Name))
	if err != nil || len(found) == 0 {
		return
	}
	used, err := p.o.Machine.Tree(found[0])
	if err != nil {
		return
	}
	fs, err := p.o.Machine.FileSystem(found[0])
	if err != nil {
		return
	}
	trees.volumes = append(trees.volumes, statsapi.VolumeStats{Name: volume.Name, FsStats: *within(fileSystem(fs, trees.at), used, trees.at)})
	if volume.EmptyDir == nil || volume.EmptyDir.Medium != corev1.StorageMediumMemory {
		trees.ephemeral.Bytes, trees.ephemeral.Inodes = trees.ephemeral.Bytes+used.Bytes, trees.ephemeral.Inodes+used.Inodes
	}
}

func (p *Provider) addLogs(trees *podTrees, pod *corev1.Pod) {
	dir := p.o.Pods.LogDir(pod)
	fs, err := p.o.Machine.FileSystem(dir)
	if err != nil {
		return
	}
	for status := range running(pod) {
		used, err := p.o.Machine.Tree(filepath.Join(dir, status.Name))
		if err != nil {
			continue
		}
		trees.logs[status.Name] = within(fileSystem(fs, trees.at), used, trees.at)
		trees.ephemeral.Bytes, trees.ephemeral.Inodes = trees.ephemeral.Bytes+used.Bytes, trees.ephemeral.Inodes+used.Inodes
	}
}
