package agent

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/everynode/everynode/internal/agent/cgroups"
	"github.com/everynode/everynode/internal/agent/images"
	"github.com/everynode/everynode/internal/agent/logs"
	"github.com/everynode/everynode/internal/agent/measure"
	"github.com/everynode/everynode/internal/agent/pressure"
	"github.com/everynode/everynode/internal/agent/shutdown"
	"github.com/everynode/everynode/internal/agent/stats"
	"github.com/everynode/everynode/internal/decide/eviction"
	"github.com/everynode/everynode/internal/decide/podlife"
)

// assembleUpkeep makes the parts by which the node looks after itself.
func (p *parts) assembleUpkeep() error {
	var err error
	s := p.settings
	p.logs, err = logs.New(logs.Options{
		Runtime: p.runtime.Runtime, Running: p.pods.RunningLogs, MaxSize: s.LogMaxSize, MaxFiles: s.LogMaxFiles, Every: s.LogInterval,
	})
	if err != nil {
		return err
	}
	p.garbage, err = images.NewCollector(images.CollectorOptions{
		Images: p.runtime.Images, Runtime: p.runtime.Runtime, Wanted: p.pods.WantedImages, Dir: p.o.imagesDir(), Policy: s.Images, Provenance: p.pulled,
		Recorder: p.events.recorder, Node: p.nodeRef,
	})
	if err != nil {
		return err
	}
	machine := measure.New("/")
	p.stats, err = stats.New(stats.Options{
		NodeName: p.o.NodeName, Machine: machine, CgroupRoot: p.o.cgroupRoot(), DataDir: p.o.DataDir, VolumesDir: p.o.podsDir(),
		Pods: p.pods, Runtime: p.runtime.Runtime, Images: p.runtime.Images,
	})
	if err != nil {
		return err
	}
	p.guard, err = pressure.New(pressure.Options{
		Thresholds: s.Thresholds, Transition: s.PressureTransition, MaxPodGrace: s.MaxPodGrace,
		Machine: &pressure.Host{Machine: machine, DataDir: p.o.DataDir, PodsCgroup: p.o.cgroupRoot(), Images: p.runtime.Images},
		Pods:    p.pods, Usage: p.stats.Summary, DeleteImages: p.deleteImages,
		Recorder: p.events.recorder, Node: p.nodeRef, Changed: p.node.Poke,
	})
	if err != nil {
		return err
	}
	p.shutdown, err = shutdown.New(shutdown.Options{
		Periods: s.Shutdown, Pods: p.pods, Recorder: p.events.recorder, Node: p.nodeRef, Changed: p.node.Poke,
	})
	return err
}

// collectImages begins when the images that came with the machine are known as such.
func (p *parts) collectImages(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-p.preloaded:
	}
	return p.garbage.Run(ctx)
}

func (p *parts) deleteImages(ctx context.Context) error {
	select {
	case <-p.preloaded:
		return p.garbage.DeleteUnused(ctx)
	default:
		return errors.New("the images that came with the machine are still being imported")
	}
}

// refuse says why this node does not take a pod now, or nil.
func (p *parts) refuse(pod *corev1.Pod) *podlife.Verdict {
	if v := p.shutdown.Refuse(pod); v != nil {
		return v
	}
	return p.guard.Refuse(pod)
}

// allocatable is what of a capacity pods may ask for.
func (p *parts) allocatable(capacity corev1.ResourceList) corev1.ResourceList {
	return eviction.Allocatable(capacity, p.settings.Reserved, p.settings.Thresholds)
}

// cgroupLimits keep what is reserved from the pods, where anything is. A reservation that leaves them
// nothing is an error: no pod could run, and none would say why.
func (p *parts) cgroupLimits() (cgroups.Limits, error) {
	capacity, err := p.node.Capacity()
	if err != nil {
		return cgroups.Limits{}, fmt.Errorf("what this machine has: %w", err)
	}
	_, pids, err := measure.New("/").Processes()
	if err != nil {
		return cgroups.Limits{}, err
	}
	return limits(p.settings.Reserved, corev1.ResourceList{
		corev1.ResourceMemory: *capacity.Memory(), corev1.ResourceCPU: *capacity.Cpu(), pid: *resource.NewQuantity(int64(pids), resource.DecimalSI),
	})
}

// pid is how reservations call process ids.
const pid corev1.ResourceName = "pid"

func limits(reserved, capacity corev1.ResourceList) (cgroups.Limits, error) {
	var l cgroups.Limits
	for name, limit := range map[corev1.ResourceName]*int64{corev1.ResourceMemory: &l.Memory, corev1.ResourceCPU: &l.CPU, pid: &l.PIDs} {
		part, has := reserved[name]
		if !has || part.IsZero() {
			continue
		}
		left := capacity[name].DeepCopy()
		left.Sub(part)
		if left.Sign() <= 0 {
			total := capacity[name]
			return cgroups.Limits{}, fmt.Errorf("systemReserved and kubeReserved keep %s %s from pods, and this machine has %s: reserve less", part.String(), name, total.String())
		}
		if *limit = left.Value(); name == corev1.ResourceCPU {
			*limit = left.MilliValue()
		}
	}
	return l, nil
}
