package pods

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/agent/manifests"
	"github.com/everynode/everynode/internal/decide/podlife"
	"github.com/everynode/everynode/internal/sleep"
)

// statics are the static pods as they should be, and what the API has of them. The manager's mutex
// guards it.
type statics struct {
	// known is closed with the first SetStatic: until then nobody can tell what is an orphan.
	known chan struct{}
	// begun is set once workers may be started; it is their context.
	begun context.Context
	// want are the pods of the manifests by full name. unread are the manifests that cannot be read:
	// what an earlier agent has made of them stays.
	want   map[string]*corev1.Pod
	unread []string
	// mirrors are the mirror pods that the API has, by full name; listed says that it was asked.
	mirrors map[string]*corev1.Pod
	listed  bool
	// ending are the mirrors without a pod that are being deleted.
	ending map[types.UID]bool
	// nodeUID is that of this node's Node, "" while it is not known.
	nodeUID types.UID
}

func newStatics() statics {
	return statics{known: make(chan struct{}), mirrors: map[string]*corev1.Pod{}, ending: map[types.UID]bool{}}
}

// SetStatic makes these the node's static pods, which come from manifests and need no server. Those
// that are not among them any more are ended. A pod that takes another's name starts when the other
// one has ended. Until the first call, static pods that an earlier agent has left are not touched;
// those of unread manifests never are.
func (m *Manager) SetStatic(pods []*corev1.Pod, unread []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.static.want == nil {
		close(m.static.known)
	}
	m.static.want, m.static.unread = map[string]*corev1.Pod{}, unread
	for _, pod := range pods {
		m.static.want[manifests.FullName(pod)] = pod
	}
	if m.static.begun != nil {
		m.applyStaticLocked()
	}
}

// beginStatic lets static pods run, once it is known what an earlier agent has left of them: that
// is ended first where no manifest has it any more. It needs no server.
func (m *Manager) beginStatic(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-m.static.known:
	}
	have, err := m.inventory(ctx)
	for ; err != nil; have, err = m.inventory(ctx) {
		if !sleep.For(ctx, maxWait) {
			return
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	m.static.begun = ctx
	for uid := range have.uids() {
		file, static := have.static(uid)
		pod := restored(have.sandboxes[uid], have.containers[uid])
		if want := m.static.want[manifests.FullName(pod)]; !static || want != nil && want.UID == uid || slices.Contains(m.static.unread, file) {
			continue
		}
		klog.FromContext(ctx).Info("Ending a static pod that no manifest has any more", "pod", klog.KObj(pod), "uid", uid)
		w := newWorker(m, pod)
		w.static, w.stale, w.blind = true, true, true
		m.withdrawLocked(w)
		m.startLocked(ctx, w)
	}
	m.applyStaticLocked()
}

// stopStatic has no more workers started: Run is about to end.
func (m *Manager) stopStatic() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.static.begun = nil
}

// applyStaticLocked starts the static pods that lack a worker, and ends those that are not wanted.
func (m *Manager) applyStaticLocked() {
	for _, w := range m.workers {
		if w.static && !m.wantsLocked(w) {
			m.withdrawLocked(w)
		}
	}
	names := make([]string, 0, len(m.static.want))
	for name := range m.static.want {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		m.startStaticLocked(name)
	}
	for _, mirror := range m.static.mirrors {
		m.checkMirrorLocked(mirror)
	}
}

func (m *Manager) wantsLocked(w *worker) bool {
	pod := m.static.want[w.name]
	return pod != nil && pod.UID == w.uid
}

// withdrawLocked ends a static pod: its file says so.
func (m *Manager) withdrawLocked(w *worker) {
	w.withdrawn = true
	w.post(func() { w.facts.Gone = true })
}

// startStaticLocked starts the pod of that name, unless it runs, or one before it has yet to end.
func (m *Manager) startStaticLocked(name string) {
	pod := m.static.want[name]
	if m.static.begun == nil {
		return // the agent is about to end
	}
	if old := m.staticWorkerLocked(name); old != nil {
		if old.uid == pod.UID && !old.withdrawn {
			old.post(func() { old.setPod(pod) })
		}
		return
	}
	w := newWorker(m, pod)
	w.static, w.stale, w.blind = true, true, true
	w.mirror.known, w.mirror.pod = m.static.listed, m.static.mirrors[name]
	m.admitLocked(m.static.begun, w)
	w.rejected = w.facts.Rejected != nil
	m.startLocked(m.static.begun, w)
}

// staticWorkerLocked is the worker of the static pod of that name.
func (m *Manager) staticWorkerLocked(name string) *worker {
	for _, w := range m.workers {
		if w.static && w.name == name {
			return w
		}
	}
	return nil
}

// endedStaticLocked lets the pod start that has waited for this one's end, if there is one.
func (m *Manager) endedStaticLocked(w *worker) {
	if m.static.want[w.name] != nil {
		m.startStaticLocked(w.name)
	} else if mirror := m.static.mirrors[w.name]; mirror != nil {
		m.checkMirrorLocked(mirror)
	}
}

// retryStaticLocked starts static pods anew that were not admitted when they were started, and would
// be now. Nobody else would: no controller replaces them.
func (m *Manager) retryStaticLocked() {
	for _, w := range m.workers {
		pod := w.shown.Load().pod
		if w.static && w.rejected && !w.withdrawn && m.o.Refuse(pod) == nil && podlife.Admit(pod, m.admittedLocked(w), m.host()).Rejected == nil {
			m.withdrawLocked(w)
		}
	}
}
