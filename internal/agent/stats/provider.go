package stats

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/everynode/everynode/internal/agent/measure"
	"github.com/everynode/everynode/internal/sleep"
)

const (
	// Fresh is how long a measurement is given to all who ask.
	Fresh = 10 * time.Second
	// firstWindow is the time over which processor use is measured for the first to ask.
	firstWindow = 300 * time.Millisecond
	// longestWindow is the age at which an earlier measurement says nothing about now.
	longestWindow = 2 * time.Minute
)

// Pods knows the pods of this node and where they are on the machine.
type Pods interface {
	// Pods are this node's, with their present status. They are not changed.
	Pods() []*corev1.Pod
	// Cgroup is the path of a pod's cgroup; those of its containers lie below it.
	Cgroup(pod *corev1.Pod) string
	// LogDir is the folder of a pod's logs, with one for each container.
	LogDir(pod *corev1.Pod) string
	// Sandbox is the ID of a pod's running sandbox.
	Sandbox(namespace, pod string, uid types.UID) (id string, err error)
}

// Runtime knows what containers write to their own layers.
type Runtime interface {
	ListContainerStats(ctx context.Context, filter *runtimeapi.ContainerStatsFilter) ([]*runtimeapi.ContainerStats, error)
}

// Images knows where images are and what they take.
type Images interface {
	ImageFsInfo(ctx context.Context) (*runtimeapi.ImageFsInfoResponse, error)
}

// Options of a Provider. All are required.
type Options struct {
	NodeName string
	Machine  *measure.Machine
	// CgroupRoot is the parent of all pods' cgroups.
	CgroupRoot string
	// DataDir names the node's file system, VolumesDir has a folder for each pod's volumes.
	DataDir, VolumesDir string
	Pods                Pods
	Runtime             Runtime
	Images              Images
}

// Validate reports the first option that is missing.
func (o *Options) Validate() error {
	switch {
	case o.NodeName == "" || o.CgroupRoot == "" || o.DataDir == "" || o.VolumesDir == "":
		return errors.New("stats: NodeName, CgroupRoot, DataDir and VolumesDir must be set")
	case o.Machine == nil || o.Pods == nil || o.Runtime == nil || o.Images == nil:
		return errors.New("stats: Machine, Pods, Runtime and Images must be set")
	}
	return nil
}

// Provider measures the node when asked. It is safe for concurrent use.
type Provider struct {
	o       Options
	started time.Time
	// turn is held by who measures; others wait for it and then find a fresh measurement.
	turn chan struct{}
	// last is the newest measurement; owned by who has the turn.
	last *snapshot
	// storage is the newest look at the file systems; owned by who has the turn.
	storage *storage

	// trees are what pods' volumes and logs took when last walked through; owned likewise.
	trees map[types.UID]podTrees
}

// New checks the options and returns a Provider that has not measured anything.
func New(o Options) (*Provider, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	started, err := o.Machine.Started()
	if err != nil {
		started = time.Now()
	}
	return &Provider{o: o, started: started, turn: make(chan struct{}, 1), trees: map[types.UID]podTrees{}}, nil
}

// measured is a measurement no older than Fresh. With rates it says what processor time is used
// per second now, too.
func (p *Provider) measured(ctx context.Context, rates bool) (*snapshot, error) {
	if err := p.acquire(ctx); err != nil {
		return nil, err
	}
	defer p.release()
	return p.measuredLocked(ctx, rates)
}

func (p *Provider) acquire(ctx context.Context) error {
	select {
	case p.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *Provider) release() { <-p.turn }

func (p *Provider) measuredLocked(ctx context.Context, rates bool) (*snapshot, error) {
	now := time.Now()
	if p.last != nil && now.Sub(p.last.at) < Fresh && (p.last.rates || !rates) {
		return p.last, nil
	}
	base := p.last
	if base != nil && now.Sub(base.at) > longestWindow {
		base = nil
	}
	if rates {
		if base == nil {
			base = p.read(nil)
		}
		if !sleep.For(ctx, time.Until(base.at.Add(firstWindow))) {
			return nil, ctx.Err()
		}
	}
	p.last = p.read(base)
	return p.last, nil
}
