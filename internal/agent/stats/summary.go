package stats

import (
	"context"
	"os"
	"path"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/ptr"

	"github.com/everynode/everynode/internal/agent/measure"
)

// defaultInterface is whose numbers stand for the whole, as with the kubelet.
const defaultInterface = "eth0"

// CPUAndMemory is the part of the Summary that is cheap to measure.
func (p *Provider) CPUAndMemory(ctx context.Context) (*statsapi.Summary, error) {
	s, err := p.measured(ctx, true)
	if err != nil {
		return nil, err
	}
	return p.summary(s), s.err
}

// Summary is everything: processors, memory, file systems, volumes, logs, network and processes.
func (p *Provider) Summary(ctx context.Context) (*statsapi.Summary, error) {
	if err := p.acquire(ctx); err != nil {
		return nil, err
	}
	defer p.release()
	s, err := p.measuredLocked(ctx, true)
	if err != nil {
		return nil, err
	}
	summary := p.summary(s)
	p.addStorage(ctx, s, summary)
	now := metav1.Now()
	if list, err := p.o.Machine.Interfaces(os.Getpid()); err == nil {
		summary.Node.Network = network(list, now)
	}
	if running, limit, err := p.o.Machine.Processes(); err == nil {
		summary.Node.Rlimit = &statsapi.RlimitStats{Time: now, MaxPID: ptr.To(int64(limit)), NumOfRunningProcesses: ptr.To(int64(running))}
	}
	for i := range summary.Pods {
		summary.Pods[i].Network = p.podNetwork(s.pods[i])
		summary.Pods[i].ProcessStats = &statsapi.ProcessStats{ProcessCount: ptr.To(s.pods[i].processes)}
	}
	return summary, s.err
}

// summary has a pod for each of the snapshot's, in its order.
func (p *Provider) summary(s *snapshot) *statsapi.Summary {
	out := &statsapi.Summary{
		Node: statsapi.NodeStats{
			NodeName: p.o.NodeName, StartTime: metav1.NewTime(p.started), CPU: cpu(s.node.cpu),
			Memory: memory(s.node.memory.Memory, s.at), Swap: swap(s.node.memory.Memory, s.at),
		},
		Pods: make([]statsapi.PodStats, 0, len(s.pods)),
	}
	out.Node.Memory.AvailableBytes = ptr.To(s.node.memory.Available)
	if s.all != nil {
		out.Node.SystemContainers = []statsapi.ContainerStats{{
			Name: statsapi.SystemContainerPods, StartTime: metav1.NewTime(p.started), CPU: cpu(s.all.cpu), Memory: memory(s.all.memory, s.at),
		}}
	}
	for _, of := range s.pods {
		pod := statsapi.PodStats{
			PodRef: statsapi.PodReference{Name: of.pod.Name, Namespace: of.pod.Namespace, UID: string(of.pod.UID)},
			CPU:    cpu(of.cpu), Memory: memory(of.memory, s.at), Swap: swap(of.memory, s.at),
			Containers: make([]statsapi.ContainerStats, 0, len(of.containers)),
		}
		if of.pod.Status.StartTime != nil {
			pod.StartTime = *of.pod.Status.StartTime
		}
		for _, c := range of.containers {
			pod.Containers = append(pod.Containers, statsapi.ContainerStats{
				Name: c.name, StartTime: metav1.NewTime(c.started), CPU: cpu(c.cpu), Memory: memory(c.memory, s.at), Swap: swap(c.memory, s.at),
			})
		}
		out.Pods = append(out.Pods, pod)
	}
	return out
}

func cpu(u cpuUse) *statsapi.CPUStats {
	s := &statsapi.CPUStats{Time: metav1.NewTime(u.at), UsageCoreNanoSeconds: ptr.To(uint64(u.total))}
	if u.hasRate {
		s.UsageNanoCores = ptr.To(uint64(u.rate))
	}
	return s
}

func memory(m measure.Memory, at time.Time) *statsapi.MemoryStats {
	s := &statsapi.MemoryStats{
		Time: metav1.NewTime(at), UsageBytes: &m.Usage, WorkingSetBytes: &m.WorkingSet, RSSBytes: &m.RSS,
		PageFaults: &m.PageFaults, MajorPageFaults: &m.MajorPageFaults,
	}
	if m.Limit > 0 {
		s.AvailableBytes = ptr.To(m.Limit - min(m.WorkingSet, m.Limit))
	}
	return s
}

func swap(m measure.Memory, at time.Time) *statsapi.SwapStats {
	return &statsapi.SwapStats{Time: metav1.NewTime(at), SwapUsageBytes: &m.Swap}
}

// podNetwork is what went through the pod's own interfaces; nil for one on the node's network.
func (p *Provider) podNetwork(of podUse) *statsapi.NetworkStats {
	if of.pod.Spec.HostNetwork {
		return nil
	}
	list, err := p.o.Machine.Interfaces(p.processOf(of))
	if err != nil {
		return nil
	}
	return network(list, metav1.Now())
}

// processOf is some process in the pod's network namespace; 0 if there is none.
func (p *Provider) processOf(of podUse) int {
	if id, err := p.o.Pods.Sandbox(of.pod.Namespace, of.pod.Name, of.pod.UID); err == nil {
		return p.o.Machine.CgroupProcess(path.Join(of.cpu.cgroup, id))
	}
	return 0
}

func network(list []measure.Interface, at metav1.Time) *statsapi.NetworkStats {
	s := &statsapi.NetworkStats{Time: at}
	for _, i := range list {
		one := statsapi.InterfaceStats{Name: i.Name, RxBytes: &i.RxBytes, RxErrors: &i.RxErrors, TxBytes: &i.TxBytes, TxErrors: &i.TxErrors}
		if i.Name == defaultInterface {
			s.InterfaceStats = one
		}
		s.Interfaces = append(s.Interfaces, one)
	}
	return s
}
