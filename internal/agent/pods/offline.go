package pods

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/sleep"
)

// offlinePatience is how long a server that neither answers nor refuses the connection is waited
// for before pods are run from the record.
const offlinePatience = 5 * time.Second

// server is what is known of the API server since the start.
type server struct {
	// away is closed when it cannot be reached.
	away     chan struct{}
	awayOnce sync.Once
	// refused: it answers, but does not let this node list its pods. They are not run then.
	refused atomic.Bool
}

// missed takes why the list of pods could not be had.
func (s *server) missed(err error) {
	refused := apierrors.IsUnauthorized(err) || apierrors.IsForbidden(err) || apierrors.IsNotFound(err)
	s.refused.Store(refused)
	if !refused {
		s.awayOnce.Do(func() { close(s.away) })
	}
}

// runOffline runs the remembered pods of DaemonSets if there is no server in sight. What they are to
// do the server says when it is back: its first list finds them as workers like any other.
func (m *Manager) runOffline(ctx context.Context) {
	for waited := false; !waited || m.server.refused.Load(); waited = true {
		select {
		case <-ctx.Done():
			return
		case <-m.server.away:
		case <-time.After(offlinePatience):
		}
		if m.hasList() {
			return
		}
	}
	pods := m.o.Offline.Recall(ctx)
	if len(pods) == 0 {
		return
	}
	have, err := m.inventory(ctx)
	for ; err != nil; have, err = m.inventory(ctx) {
		if !sleep.For(ctx, maxWait) {
			return
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.static.listed || ctx.Err() != nil {
		m.o.Offline.Heard()
		return
	}
	for _, pod := range pods {
		if pod.Spec.NodeName != m.o.NodeName || m.workers[pod.UID] != nil {
			continue
		}
		klog.FromContext(ctx).Info("No server answers; running a pod as it was last known", "pod", klog.KObj(pod), "uid", pod.UID)
		w := newWorker(m, pod)
		w.stale, w.recalled, w.offline = true, true, true
		m.recall(w, have.containers[pod.UID])
		m.startLocked(ctx, w)
	}
}

// hasList: the server has told which pods this node has.
func (m *Manager) hasList() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.static.listed
}

// heardLocked is told which pods the server's list has, the first one and every later one.
func (m *Manager) heardLocked(listed map[types.UID]bool) {
	m.o.Offline.Heard()
	m.o.Offline.Only(func(uid types.UID) bool { return listed[uid] })
	for _, w := range m.workers {
		if w.offline {
			w.offline = false
			w.post(w.complete)
		}
	}
}

// complete gives a pod that was run as it was last known what only the server can give.
func (w *worker) complete() {
	w.retryConfiguration()
	w.m.o.Volumes.Update(w.facts.Pod)
}

// nothing is remembered by a node that is told not to.
type nothing struct{}

func (nothing) Keep(*corev1.Pod)                     {}
func (nothing) Drop(types.UID)                       {}
func (nothing) Only(func(types.UID) bool)            {}
func (nothing) Recall(context.Context) []*corev1.Pod { return nil }
func (nothing) Heard()                               {}
