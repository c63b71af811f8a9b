package pods

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"github.com/everynode/everynode/internal/agent/manifests"
	"github.com/everynode/everynode/internal/sleep"
)

// mirror is the pod in the API that shows a static pod to its users. It belongs to the worker.
//
//	none ──create──> ours ──deleted by anybody──> none
//	 ▲                                            another's, or marked for deletion
//	 └────────────────────────delete─────────────────────┘
type mirror struct {
	// pod is what the API has under the static pod's name; known says that it was asked.
	pod   *corev1.Pod
	known bool
	// adopted: the mirror's status has been taken over.
	adopted bool
	busy    bool
	// retry is when a failed write may be repeated; wait grows with each failure.
	retry time.Time
	wait  time.Duration
	// told is the failure last complained of.
	told string
}

// own is the mirror if it stands for this very pod, and may be written to.
func (m *mirror) own(static types.UID) *corev1.Pod {
	if m.pod == nil || m.pod.DeletionTimestamp != nil || m.pod.Annotations[corev1.MirrorPodAnnotationKey] != string(static) {
		return nil
	}
	return m.pod
}

func (m *mirror) uid() types.UID {
	if m.pod == nil {
		return ""
	}
	return m.pod.UID
}

// Back-off of failed writes of mirrors.
const (
	firstMirrorWait = 200 * time.Millisecond
	maxMirrorWait   = 10 * time.Second
)

// isMirror tells the pods of the API that stand for static ones.
func isMirror(pod *corev1.Pod) bool {
	_, yes := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return yes
}

// keepMirror makes sure that the API shows the static pod: it makes the mirror, and takes away one
// that stands for another pod or is being deleted. One write at a time; after a failure it returns
// when to call again.
func (w *worker) keepMirror(ctx context.Context, now time.Time) (again time.Time) {
	m := &w.mirror
	if !w.static || w.facts.Gone || !m.known || m.busy || m.own(w.uid) != nil {
		return time.Time{}
	}
	if now.Before(m.retry) {
		return m.retry
	}
	m.busy = true
	old, pod := m.pod, w.facts.Pod
	w.m.running.Go(func() {
		var got *corev1.Pod
		var err error
		if old != nil {
			err = w.m.deleteNow(ctx, old)
		} else {
			got, err = w.m.createMirror(ctx, pod)
		}
		w.post(func() { w.mirrored(ctx, old, got, err) })
	})
	return time.Time{}
}

// mirrored takes the outcome of a write.
func (w *worker) mirrored(ctx context.Context, deleted, got *corev1.Pod, err error) {
	m := &w.mirror
	m.busy = false
	if err == nil {
		m.retry, m.wait, m.told = time.Time{}, 0, ""
		if got != nil || m.pod == deleted { // else the watch has brought something newer
			w.setMirror(got)
		}
		return
	}
	m.wait = min(max(2*m.wait, firstMirrorWait), maxMirrorWait)
	m.retry = w.m.now().Add(m.wait)
	if ctx.Err() != nil || m.told == err.Error() {
		return
	}
	m.told = err.Error()
	klog.FromContext(ctx).Info("The API does not show a static pod yet; it will be tried again", "err", err)
	if apierrors.IsInvalid(err) || apierrors.IsForbidden(err) {
		w.m.event(w.facts.Pod, "", corev1.EventTypeWarning, "FailedCreateMirrorPod", "the pod runs, but the server does not take its mirror: "+err.Error())
	}
}

// setMirror takes what the API has under the static pod's name.
func (w *worker) setMirror(pod *corev1.Pod) {
	m := &w.mirror
	if pod != nil && m.pod != nil && pod.UID == m.pod.UID && newerVersion(m.pod, pod) {
		return
	}
	m.pod, m.known = pod, true
	m.retry = time.Time{}
	own := m.own(w.uid)
	if own == nil || m.adopted {
		return
	}
	m.adopted = true
	if s := own.Status; s.StartTime != nil && s.Phase == corev1.PodRunning {
		w.facts.Reported = s.DeepCopy() // an earlier agent's: times of transition go on from there
	}
}

// createMirror makes the mirror of a static pod, or finds it.
func (m *Manager) createMirror(ctx context.Context, static *corev1.Pod) (*corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	node := m.nodeUID()
	if node == "" {
		return nil, errors.New("this machine's Node is not known yet")
	}
	mirror := static.DeepCopy()
	mirror.UID = ""
	mirror.Annotations = maps.Clone(static.Annotations)
	mirror.Annotations[corev1.MirrorPodAnnotationKey] = string(static.UID)
	mirror.OwnerReferences = []metav1.OwnerReference{{
		APIVersion: "v1", Kind: "Node", Name: m.o.NodeName, UID: node, Controller: ptr.To(true),
	}}
	pods := m.o.Client.CoreV1().Pods(mirror.Namespace)
	got, err := pods.Create(ctx, mirror, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		return trimmed(got), err
	}
	have, getErr := pods.Get(ctx, mirror.Name, metav1.GetOptions{})
	switch {
	case getErr != nil:
		return nil, getErr
	case !isMirror(have):
		return nil, fmt.Errorf("the API has a pod %s/%s that is no mirror: delete it, or rename the static pod", have.Namespace, have.Name)
	}
	return trimmed(have), nil
}

func trimmed(pod *corev1.Pod) *corev1.Pod {
	if pod != nil {
		pod.ManagedFields = nil
	}
	return pod
}

// SetNode tells under which UID the API has this node, which owns the mirrors.
func (m *Manager) SetNode(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.static.nodeUID == uid {
		return
	}
	m.static.nodeUID = uid
	for _, w := range m.workers {
		if w.static {
			w.post(func() { w.mirror.retry = time.Time{} })
		}
	}
}

func (m *Manager) nodeUID() types.UID {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.static.nodeUID
}

// takeMirrorsLocked takes the mirrors out of a full list of this node's pods.
func (m *Manager) takeMirrorsLocked(list []*corev1.Pod) []*corev1.Pod {
	m.static.mirrors, m.static.listed = map[string]*corev1.Pod{}, true
	rest := slices.DeleteFunc(list, func(pod *corev1.Pod) bool {
		if isMirror(pod) {
			m.static.mirrors[manifests.FullName(pod)] = pod
		}
		return isMirror(pod)
	})
	for _, w := range m.workers {
		if w.static {
			pod := m.static.mirrors[w.name]
			w.post(func() { w.setMirror(pod) })
		}
	}
	for _, mirror := range m.static.mirrors {
		m.checkMirrorLocked(mirror)
	}
	return rest
}

// takeMirrorLocked takes a mirror that is new or has changed.
func (m *Manager) takeMirrorLocked(pod *corev1.Pod) {
	name := manifests.FullName(pod)
	m.static.mirrors[name] = pod
	if w := m.staticWorkerLocked(name); w != nil {
		w.post(func() { w.setMirror(pod) })
	}
	m.checkMirrorLocked(pod)
}

// goneMirrorLocked is told that the API has deleted a mirror.
func (m *Manager) goneMirrorLocked(pod *corev1.Pod) {
	name := manifests.FullName(pod)
	if have := m.static.mirrors[name]; have != nil && have.UID == pod.UID {
		delete(m.static.mirrors, name)
	}
	if w := m.staticWorkerLocked(name); w != nil {
		w.post(func() {
			if w.mirror.uid() == pod.UID {
				w.setMirror(nil)
			}
		})
	}
}

func (m *Manager) goneMirror(pod *corev1.Pod) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.static.ending, pod.UID)
	m.goneMirrorLocked(pod)
}

// checkMirrorLocked has a mirror deleted that stands for nothing.
func (m *Manager) checkMirrorLocked(mirror *corev1.Pod) {
	if ctx := m.static.begun; m.orphanLocked(mirror) && !m.static.ending[mirror.UID] {
		m.static.ending[mirror.UID] = true
		m.running.Go(func() { m.endMirror(ctx, mirror) })
	}
}

// orphanLocked: no manifest has the mirror's pod, and nothing of it runs any more.
func (m *Manager) orphanLocked(mirror *corev1.Pod) bool {
	name := manifests.FullName(mirror)
	now := m.static.mirrors[name]
	return m.static.begun != nil && now != nil && now.UID == mirror.UID &&
		m.static.want[name] == nil && m.staticWorkerLocked(name) == nil &&
		!slices.Contains(m.static.unread, mirror.Annotations[manifests.FileAnnotation])
}

// endMirror deletes a mirror that stands for nothing, for as long as that is so.
func (m *Manager) endMirror(ctx context.Context, mirror *corev1.Pod) {
	for wait := firstMirrorWait; ctx.Err() == nil; wait = min(2*wait, maxMirrorWait) {
		m.mu.Lock()
		orphan := m.orphanLocked(mirror)
		if !orphan {
			delete(m.static.ending, mirror.UID)
		}
		m.mu.Unlock()
		if !orphan {
			return
		}
		err := m.deleteNow(ctx, mirror)
		if err == nil {
			m.goneMirror(mirror)
			return
		}
		klog.FromContext(ctx).V(1).Info("A mirror of a static pod that is gone was not deleted; it will be tried again", "pod", klog.KObj(mirror), "err", err)
		sleep.For(ctx, wait)
	}
}
