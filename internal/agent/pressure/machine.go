package pressure

import (
	"context"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/agent/measure"
	"github.com/everynode/everynode/internal/decide/eviction"
)

// Images knows where the runtime keeps images.
type Images interface {
	ImageFsInfo(ctx context.Context) (*runtimeapi.ImageFsInfoResponse, error)
}

// Host is the machine that this process runs on.
type Host struct {
	Machine *measure.Machine
	// DataDir names the node's file system.
	DataDir string
	// PodsCgroup is the parent of all pods' cgroups; its limit, if it has one, is theirs together.
	PodsCgroup string
	Images     Images

	// imagesDir is where images are, once the runtime has said so.
	imagesDir string
}

// Observe measures what is left of everything. What cannot be measured is left out, and logged.
func (h *Host) Observe(ctx context.Context) (eviction.Observations, eviction.Layout) {
	o := eviction.Observations{}
	log := klog.FromContext(ctx)
	if memory, err := h.Machine.Memory(); err != nil {
		log.Error(err, "Memory cannot be measured")
	} else {
		o[eviction.MemoryAvailable] = eviction.Observation{Available: int64(memory.Available), Capacity: int64(memory.Capacity)}
	}
	if pods, err := h.Machine.Cgroup(h.PodsCgroup); err == nil && pods.Memory.Limit > 0 {
		limit := int64(pods.Memory.Limit)
		o[eviction.AllocatableMemory] = eviction.Observation{Available: limit - min(int64(pods.Memory.WorkingSet), limit), Capacity: limit}
	}
	if running, limit, err := h.Machine.Processes(); err != nil {
		log.Error(err, "Processes cannot be counted")
	} else {
		o[eviction.PIDAvailable] = eviction.Observation{Available: int64(limit) - int64(min(running, limit)), Capacity: int64(limit)}
	}
	node, err := h.Machine.FileSystem(h.DataDir)
	if err != nil {
		log.Error(err, "The node's file system cannot be measured")
		return o, eviction.Layout{}
	}
	room(o, eviction.NodeFsAvailable, eviction.NodeFsInodesFree, node)
	images, known := h.images(ctx)
	if known {
		room(o, eviction.ImageFsAvailable, eviction.ImageFsInodesFree, images)
	}
	return o, eviction.Layout{ImagesApart: known && images.Device != node.Device}
}

// room observes a file system. Some count no inodes.
func room(o eviction.Observations, bytes, inodes eviction.Signal, fs measure.FileSystem) {
	o[bytes] = eviction.Observation{Available: int64(fs.Available), Capacity: int64(fs.Capacity)}
	if fs.Inodes > 0 {
		o[inodes] = eviction.Observation{Available: int64(fs.InodesFree), Capacity: int64(fs.Inodes)}
	}
}

// images measures the images' file system. The runtime is asked once where that is.
func (h *Host) images(ctx context.Context) (measure.FileSystem, bool) {
	if h.imagesDir == "" {
		r, err := h.Images.ImageFsInfo(ctx)
		if err != nil || len(r.GetImageFilesystems()) == 0 {
			return measure.FileSystem{}, false
		}
		h.imagesDir = r.ImageFilesystems[0].GetFsId().GetMountpoint()
	}
	fs, err := h.Machine.FileSystem(h.imagesDir)
	if err != nil {
		h.imagesDir = "" // ask again
		return fs, false
	}
	return fs, true
}
