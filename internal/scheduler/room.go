package scheduler

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/everynode/everynode/internal/decide/placement"
)

// Room is the ledger of the nodes' room, which the DaemonSet controller keeps.
type Room interface {
	// Outstanding adds up what has been promised on a node to pods that the asker does not count.
	Outstanding(node string, counted func(podKey string) bool) (d placement.Demand, pods int64)
	// Reserve promises room to a pod, or says why the node has too little.
	Reserve(podKey, node string, d *placement.Demand) []placement.Reason
	// Release takes a promise back that came to nothing.
	Release(podKey string)
	// OnFreed has f called whenever room may have become free; f asks for none.
	OnFreed(f func())
}

// roomName is the plugin's name in profiles and in what is said about a pod.
const roomName = "SharedRoom"

// sharedRoom keeps the scheduler from giving a pod the room that a daemon pod has been created into which the
// scheduler has not seen yet, and the DaemonSet controller from the room of a pod that is being bound. What both have
// seen is judged by upstream's plugins (NodeResourcesFit, NodePorts); here are only the promises beyond.
type sharedRoom struct {
	room   Room
	handle fwk.Handle

	mu sync.Mutex
	// refused are the pods that were told no because of a promise. Promises come and go without an event that the
	// scheduler's queue would see, so the pods are tried again whenever one has gone.
	refused map[string]*corev1.Pod
}

var (
	_ fwk.FilterPlugin      = &sharedRoom{}
	_ fwk.ReservePlugin     = &sharedRoom{}
	_ fwk.EnqueueExtensions = &sharedRoom{}
	_ fwk.SignPlugin        = &sharedRoom{}
)

// sharedRoomFactory makes the plugin over a ledger.
func sharedRoomFactory(room Room) func(context.Context, runtime.Object, fwk.Handle) (fwk.Plugin, error) {
	return func(ctx context.Context, _ runtime.Object, h fwk.Handle) (fwk.Plugin, error) {
		s := &sharedRoom{room: room, handle: h, refused: map[string]*corev1.Pod{}}
		logger := klog.FromContext(ctx)
		room.OnFreed(func() { s.retry(logger) })
		return s, nil
	}
}

// Name implements fwk.Plugin.
func (s *sharedRoom) Name() string { return roomName }

// Filter implements fwk.FilterPlugin: no, where a promise takes what the pod would need.
func (s *sharedRoom) Filter(_ context.Context, _ fwk.CycleState, pod *corev1.Pod, node fwk.NodeInfo) *fwk.Status {
	promised, pods := s.room.Outstanding(node.Node().Name, among(node))
	if pods == 0 {
		return nil
	}
	if why := lacks(node, placement.DemandOf(&pod.Spec), &promised, pods); why != "" {
		s.refuse(pod)
		return fwk.NewStatus(fwk.Unschedulable, why)
	}
	return nil
}

// Reserve implements fwk.ReservePlugin: what Filter said may have become wrong by now.
func (s *sharedRoom) Reserve(_ context.Context, _ fwk.CycleState, pod *corev1.Pod, node string) *fwk.Status {
	why := s.room.Reserve(keyOf(pod), node, placement.DemandOf(&pod.Spec))
	if len(why) == 0 {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.refused, keyOf(pod))
		return nil
	}
	s.refuse(pod)
	return fwk.NewStatus(fwk.Unschedulable, why[0].String())
}

// Unreserve implements fwk.ReservePlugin.
func (s *sharedRoom) Unreserve(_ context.Context, _ fwk.CycleState, pod *corev1.Pod, _ string) {
	s.room.Release(keyOf(pod))
}

// EventsToRegister implements fwk.EnqueueExtensions: what else can make room on a node that had too little.
func (s *sharedRoom) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	return []fwk.ClusterEventWithHint{
		{Event: fwk.ClusterEvent{Resource: fwk.Pod, ActionType: fwk.Delete}},
		{Event: fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add | fwk.UpdateNodeAllocatable}},
	}, nil
}

// SignPod implements fwk.SignPlugin: what is looked at of a pod, its requests and host ports, upstream's plugins sign.
func (s *sharedRoom) SignPod(context.Context, *corev1.Pod) ([]fwk.SignFragment, *fwk.Status) {
	return nil, nil
}

func (s *sharedRoom) refuse(pod *corev1.Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused[keyOf(pod)] = pod
}

// retry has the refused pods tried again. The queue knows those that are no longer waiting.
func (s *sharedRoom) retry(logger klog.Logger) {
	s.mu.Lock()
	pods := s.refused
	if len(pods) > 0 {
		s.refused = map[string]*corev1.Pod{}
	}
	s.mu.Unlock()
	if len(pods) > 0 {
		go s.handle.Activate(logger, pods) // the queue may be busy, and the ledger's holder must not wait for it
	}
}

func keyOf(p *corev1.Pod) string { return placement.PodKey(p.Namespace, p.Name) }

// among tells which pods a node's own account counts already.
func among(node fwk.NodeInfo) func(key string) bool {
	return func(key string) bool {
		for _, p := range node.GetPods() {
			if keyOf(p.GetPod()) == key {
				return true
			}
		}
		return false
	}
}

// lacks says what a node has too little of when the promises are kept, or nothing.
func lacks(node fwk.NodeInfo, want, promised *placement.Demand, pods int64) string {
	have, used := node.GetAllocatable(), node.GetRequested()
	if int64(len(node.GetPods()))+pods+1 > int64(have.GetAllowedPodNumber()) {
		return "Too many pods: daemon pods are on their way to the node"
	}
	if p, clash := want.Clashes(promised); clash {
		return fmt.Sprintf("Host port %s is promised to a daemon pod", p)
	}
	short := func(want, have, used, promised int64) bool { return want > 0 && want > have-used-promised }
	promisedTo := func(what string) string {
		return fmt.Sprintf("Insufficient %s: daemon pods are on their way to the node", what)
	}
	switch {
	case short(want.MilliCPU, have.GetMilliCPU(), used.GetMilliCPU(), promised.MilliCPU):
		return promisedTo("cpu")
	case short(want.Memory, have.GetMemory(), used.GetMemory(), promised.Memory):
		return promisedTo("memory")
	case short(want.EphemeralStorage, have.GetEphemeralStorage(), used.GetEphemeralStorage(), promised.EphemeralStorage):
		return promisedTo("ephemeral-storage")
	}
	for name, n := range want.Other {
		if short(n, have.GetScalarResources()[name], used.GetScalarResources()[name], promised.Other[name]) {
			return promisedTo(string(name))
		}
	}
	return ""
}
