package pods

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/decide/podlife"
)

// Evict has a pod leave the node. Ended is closed when nothing of it runs any more, its volumes are
// down and the API knows; at once if there is no such pod. A pod that is evicted already goes with the shorter
// grace period and keeps the first reason.
func (m *Manager) Evict(uid types.UID, e podlife.Eviction) (ended <-chan struct{}) {
	w := m.worker(uid)
	if w == nil {
		none := make(chan struct{})
		close(none)
		return none
	}
	w.post(func() { w.evict(e) })
	return w.ended
}

func (w *worker) evict(e podlife.Eviction) {
	if old := w.facts.Evicted; old != nil {
		shorter := *old
		if e.Grace != nil && (old.Grace == nil || *e.Grace < *old.Grace) {
			shorter.Grace = e.Grace
		}
		e = shorter
	}
	w.facts.Evicted = &e
}

// Reclaim removes the records, logs included, of containers that have ended, beyond those of
// running pods that status and restarts need.
func (m *Manager) Reclaim(now bool) {
	for _, w := range m.all() {
		w.post(func() { w.facts.Reclaim = now })
	}
}

// Why a pod has to make room for a critical one, as the kubelet says it.
const (
	preempting        = "Preempting"
	preemptingMessage = "Preempted in order to admit critical pod"
	preemptingBlame   = "Pod was preempted by Kubelet to accommodate a critical pod."
)

// admitLocked decides whether a new pod may run here, and makes room for it if it is critical.
func (m *Manager) admitLocked(ctx context.Context, w *worker) {
	pod := w.facts.Pod
	if w.facts.Rejected = m.o.Refuse(pod); w.facts.Rejected == nil {
		host := m.host()
		admission := podlife.Admit(pod, m.admittedLocked(w), host)
		if admission.Rejected != nil && admission.Rejected.Reason == podlife.NodeAffinity {
			// A label that the pod was made for may not have got here yet.
			if host.Node = m.freshNode(ctx, host.Node); host.Node != nil {
				admission = podlife.Admit(pod, m.admittedLocked(w), host)
			}
		}
		w.facts.Rejected = admission.Rejected
		m.preemptLocked(ctx, pod, admission.Preempted)
	}
	if v := w.facts.Rejected; v != nil {
		w.leaving.Store(true)
		m.event(pod, "", corev1.EventTypeWarning, v.Reason, v.Message)
	}
}

// host is the node as it is known to be.
func (m *Manager) host() podlife.Host {
	return podlife.Host{Node: m.o.Node(), Allocatable: m.o.NodeFacts().Allocatable, UnsafeSysctls: m.o.AllowedUnsafeSysctls, AppArmor: m.apparmor}
}

// freshTimeout bounds the question after the Node, while which no other pod is admitted.
const freshTimeout = 2 * time.Second

func (m *Manager) freshNode(ctx context.Context, known *corev1.Node) *corev1.Node {
	ctx, cancel := context.WithTimeout(ctx, freshTimeout)
	defer cancel()
	node, err := m.o.FreshNode(ctx)
	if err != nil {
		klog.FromContext(ctx).Error(err, "The Node cannot be read; judging a pod by the labels last known")
		return known
	}
	return node
}

func (m *Manager) preemptLocked(ctx context.Context, pod *corev1.Pod, victims []*corev1.Pod) {
	for _, victim := range victims {
		w := m.workers[victim.UID]
		if w == nil {
			continue
		}
		klog.FromContext(ctx).Info("A pod makes room for a critical one", "pod", klog.KObj(victim), "criticalPod", klog.KObj(pod))
		m.event(victim, "", corev1.EventTypeWarning, preempting, preemptingMessage)
		w.leaving.Store(true)
		w.post(func() {
			w.evict(podlife.Eviction{Verdict: podlife.Verdict{Reason: preempting, Message: preemptingMessage}, Disruption: preemptingBlame})
		})
	}
}
