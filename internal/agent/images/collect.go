package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/agent/cri"
	"github.com/everynode/everynode/internal/decide/garbage"
	"github.com/everynode/everynode/internal/sleep"
)

// collectEvery is how often the disk of the images is looked at, as often as the kubelet does.
const collectEvery = 5 * time.Minute

// Containers tells which images the runtime's containers have, and what it keeps for itself.
type Containers interface {
	ListContainers(ctx context.Context, filter *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error)
	Status(ctx context.Context, verbose bool) (*runtimeapi.StatusResponse, error)
}

// CollectorOptions of a Collector. Images and Runtime are required.
type CollectorOptions struct {
	Images  internalapi.ImageManagerService
	Runtime Containers
	// Policy by default is garbage.Default.
	Policy garbage.Policy
	// Wanted are the names of images that stay, whether a container has them now or not: those of
	// the pods of this node. Default: none.
	Wanted func() []string
	// Provenance forgets what the runtime does not have any more. Default: there is none.
	Provenance *Provenance
	// Dir holds the archives of images that came with the machine; see PreloadOptions. These stay,
	// for no registry may be in reach when they are needed.
	Dir string
	// Recorder gets the events about Node. Default: none are recorded.
	Recorder record.EventRecorder
	Node     *corev1.ObjectReference
	// Disk measures the images' file system. Default: asks the runtime where it is.
	Disk func(ctx context.Context) (garbage.Disk, error)
}

// Validate fills in defaults and reports the first required option that is missing.
func (o *CollectorOptions) Validate() error {
	if o.Images == nil || o.Runtime == nil {
		return errors.New("images: Images and Runtime must be set")
	}
	if o.Policy == (garbage.Policy{}) {
		o.Policy = garbage.Default
	}
	if o.Wanted == nil {
		o.Wanted = func() []string { return nil }
	}
	if o.Recorder == nil {
		o.Recorder = &record.FakeRecorder{}
	}
	if o.Node == nil {
		o.Node = &corev1.ObjectReference{}
	}
	return o.Policy.Validate()
}

// Collector removes images that are no longer used when their disk fills up. It is safe for
// concurrent use.
type Collector struct {
	o     CollectorOptions
	now   func() time.Time
	began time.Time

	mu sync.Mutex // held during a collection
	// records of the images, by ID, for as long as the runtime has them.
	records map[string]*use
}

type use struct{ firstSeen, lastUsed time.Time }

// NewCollector checks the options and returns a Collector that does nothing until Run or DeleteUnused.
func NewCollector(o CollectorOptions) (*Collector, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	c := &Collector{o: o, now: time.Now, records: map[string]*use{}}
	if c.o.Disk == nil {
		c.o.Disk = c.disk
	}
	return c, nil
}

// Run collects now and then, until ctx ends.
func (c *Collector) Run(ctx context.Context) error {
	c.began = c.now()
	if c.o.Policy.Off() {
		_, err := c.look(cri.Quiet(ctx)) // what an earlier agent has left is settled all the same
		if err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "The images cannot be listed")
		}
		return nil
	}
	failures := 0
	for ctx.Err() == nil {
		next, err := c.collect(cri.Quiet(ctx))
		switch {
		case err == nil:
			failures = 0
		case ctx.Err() == nil:
			// The first time may be a runtime that is just starting.
			if failures++; failures > 1 {
				c.event("ImageGCFailed", err.Error())
			}
			klog.FromContext(ctx).Error(err, "Image garbage collection failed", "timesInARow", failures)
		}
		sleep.For(ctx, next)
	}
	return nil
}

func (c *Collector) event(reason, message string) {
	c.o.Recorder.Event(c.o.Node, corev1.EventTypeWarning, reason, message)
}

// collect removes what the policy no longer wants, and says when to look again.
func (c *Collector) collect(ctx context.Context) (next time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	images, err := c.look(ctx)
	if err != nil {
		return collectEvery, err
	}
	now := c.now()
	if old := c.o.Policy.Old(images, c.began, now); len(old) > 0 {
		if _, err := c.remove(ctx, old); err != nil {
			return collectEvery, err
		}
		if images, err = c.look(ctx); err != nil {
			return collectEvery, err
		}
	}
	disk, err := c.o.Disk(ctx)
	if err != nil {
		return collectEvery, err
	}
	if disk.Capacity <= 0 {
		err := errors.New("invalid capacity 0 on image filesystem")
		c.event("InvalidDiskCapacity", err.Error())
		return collectEvery, err
	}
	excess := c.o.Policy.Excess(disk)
	if excess == 0 {
		return collectEvery, nil
	}
	klog.FromContext(ctx).Info("The images' disk is too full, removing images", "usedPercent", disk.UsedPercent(), "bytesToFree", excess)
	freed, err := c.remove(ctx, garbage.Enough(c.o.Policy.Unused(images, now), excess))
	if err != nil || freed >= excess {
		return collectEvery, err
	}
	if at := c.o.Policy.Next(images, now); !at.IsZero() {
		return min(at.Sub(now), collectEvery), nil // others are only too young yet
	}
	message := fmt.Sprintf("Insufficient free disk space on the node's image filesystem (%d%% of %s used). "+
		"Failed to free sufficient space by deleting unused images (freed %d bytes). "+
		"Investigate disk usage, as it could be used by active images, logs, volumes, or other data.",
		disk.UsedPercent(), size(disk.Capacity), freed)
	c.event("FreeDiskSpaceFailed", message)
	return collectEvery, errors.New(message)
}

// DeleteUnused removes every image that may go, for a disk that is short of room.
func (c *Collector) DeleteUnused(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx = cri.Quiet(ctx)
	images, err := c.look(ctx)
	if err != nil {
		return err
	}
	_, err = c.remove(ctx, c.o.Policy.Unused(images, c.now()))
	return err
}

// remove removes images until one cannot be, and tells how many bytes they had.
func (c *Collector) remove(ctx context.Context, images []garbage.Image) (freed int64, err error) {
	for _, image := range images {
		klog.FromContext(ctx).Info("Removing an image that nothing uses", "image", image.ID, "bytes", image.Size, "lastUsed", image.LastUsed)
		if err := c.o.Images.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: image.ID}); err != nil && !cri.IsNotFound(err) {
			return freed, fmt.Errorf("remove image %s: %w", image.ID, err)
		}
		delete(c.records, image.ID)
		c.o.Provenance.Forget(image.ID)
		freed += image.Size
	}
	return freed, nil
}

// look lists the runtime's images with what is known of their use.
func (c *Collector) look(ctx context.Context) ([]garbage.Image, error) {
	// First the images: a container made after them can have no other ones but theirs.
	asked := c.now()
	images, err := c.o.Images.ListImages(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	c.o.Provenance.Reconcile(images, asked)
	used, err := c.used(ctx)
	if err != nil {
		return nil, err
	}
	kept := names(append(c.kept(ctx), c.o.Wanted()...))
	now, records := c.now(), map[string]*use{}
	var list []garbage.Image
	for _, image := range images {
		record := c.records[image.Id]
		if record == nil {
			record = &use{firstSeen: now}
		}
		records[image.Id] = record
		inUse := has(used, image)
		if inUse {
			record.lastUsed = now
		}
		list = append(list, garbage.Image{
			ID: image.Id, Size: int64(image.Size), Kept: inUse || image.Pinned || has(kept, image),
			FirstSeen: record.firstSeen, LastUsed: record.lastUsed,
		})
	}
	c.records = records
	return list, nil
}

// used are the images of all containers, by whatever name or ID the runtime gives.
func (c *Collector) used(ctx context.Context) (map[string]bool, error) {
	containers, err := c.o.Runtime.ListContainers(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	used := map[string]bool{}
	for _, c := range containers {
		for _, name := range []string{c.ImageRef, c.ImageId, c.GetImage().GetImage()} {
			if name != "" {
				used[name] = true
			}
		}
	}
	return used, nil
}

// kept are the images that the machine came with, and the one that sandboxes are made of; a runtime
// that does not pin that one itself names it in its configuration.
func (c *Collector) kept(ctx context.Context) []string {
	kept := append(Preloaded(c.o.Dir), PauseImage)
	r, err := c.o.Runtime.Status(ctx, true)
	if err != nil {
		return kept
	}
	var config struct {
		SandboxImage string `json:"sandboxImage"`
	}
	if json.Unmarshal([]byte(r.GetInfo()["config"]), &config) == nil && config.SandboxImage != "" {
		kept = append(kept, config.SandboxImage)
	}
	return kept
}

// names brings names to the form that runtimes have them in.
func names(list []string) map[string]bool {
	set := map[string]bool{}
	for _, name := range list {
		set[name] = true
		if full, err := fullName(name); err == nil {
			set[full] = true
		}
	}
	return set
}

func has(set map[string]bool, image *runtimeapi.Image) bool {
	if set[image.Id] {
		return true
	}
	for _, list := range [][]string{image.RepoTags, image.RepoDigests} {
		for _, name := range list {
			if set[name] {
				return true
			}
		}
	}
	return false
}

// disk finds the images' file system and measures it.
func (c *Collector) disk(ctx context.Context) (garbage.Disk, error) {
	r, err := c.o.Images.ImageFsInfo(ctx)
	if err != nil {
		return garbage.Disk{}, fmt.Errorf("ask the runtime where its images are: %w", err)
	}
	for _, fs := range r.GetImageFilesystems() {
		path := fs.GetFsId().GetMountpoint()
		if path == "" {
			continue
		}
		var st unix.Statfs_t
		if err := unix.Statfs(path, &st); err != nil {
			return garbage.Disk{}, fmt.Errorf("room on the file system of %s: %w", path, err)
		}
		return garbage.Disk{Capacity: int64(st.Blocks) * st.Bsize, Available: int64(st.Bavail) * st.Bsize}, nil
	}
	return garbage.Disk{}, errors.New("the runtime does not say where its images are")
}

// size is a number of bytes as people read it.
func size(bytes int64) string {
	value, unit := float64(bytes), "B"
	for _, next := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if value < 1024 {
			break
		}
		value, unit = value/1024, next
	}
	if unit == "B" {
		return fmt.Sprintf("%d B", bytes)
	}
	return fmt.Sprintf("%.1f %s", value, unit)
}
