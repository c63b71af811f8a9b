package pods

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/atomicfile"
	"github.com/everynode/everynode/internal/decide/podlife"
)

// allocation is the resources that the node has granted to a pod. It is guarded by
// the manager's mutex: what one pod gives back, another may get.
type allocation struct {
	granted podlife.Allocation
	// desired is the newest version of the pod; pending why it cannot have what it
	// asks for, and since when.
	desired *corev1.Pod
	pending *podlife.Verdict
	since   time.Time
}

// allocationFile keeps the allocation of a pod that was ever resized. No container has this name.
func (m *Manager) allocationFile(uid types.UID) string {
	return filepath.Join(m.podFiles(uid), "allocation.json")
}

// recall finds what was granted to the pod before the agent started: by the file,
// if it was ever resized, or by what its containers were created with.
func (m *Manager) recall(w *worker, containers []*runtimeapi.Container) {
	pod := w.facts.Pod
	granted := podlife.AllocationOf(pod)
	newest := map[string]uint32{}
	for _, c := range containers {
		name, attempt := c.GetMetadata().GetName(), c.GetMetadata().GetAttempt()
		r, spec := createdWith(c.Annotations), containerOf(pod, name)
		if r == nil || spec == nil || attempt < newest[name] {
			continue
		}
		newest[name], granted.Containers[name] = attempt, spec.Resources
		if len(podlife.Changed(podlife.Effective(&pod.Spec, spec), *r)) > 0 {
			granted.Containers[name] = *r // the spec has changed since
		}
	}
	if content, err := os.ReadFile(m.allocationFile(pod.UID)); err == nil {
		if stored, err := parseAllocation(content, granted); err == nil {
			granted = stored
			w.resized, w.facts.Resizing = true, true // what came of the last change is not known
		} else {
			klog.ErrorS(err, "The resources granted to a pod cannot be read; those of its containers count", "pod", klog.KObj(pod))
		}
	}
	w.allocation.granted = granted
	w.facts.Pod = granted.Apply(pod)
}

// parseAllocation reads the file of a pod with the containers of like.
func parseAllocation(content []byte, like podlife.Allocation) (podlife.Allocation, error) {
	var stored podlife.Allocation
	if err := json.Unmarshal(content, &stored); err != nil {
		return stored, err
	}
	for name := range like.Containers {
		if _, has := stored.Containers[name]; !has {
			return stored, fmt.Errorf("it says nothing of container %q", name)
		}
	}
	return stored, nil
}

func (m *Manager) saveAllocation(uid types.UID, a podlife.Allocation) error {
	content, err := json.Marshal(a)
	if err != nil {
		return err
	}
	file := m.allocationFile(uid)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return atomicfile.Write(file, content)
}

// adopt takes a version of the pod, with the resources that the node grants to it.
func (w *worker) adopt(pod *corev1.Pod) {
	before := w.facts.Pod
	granted, pending := w.m.allocate(w, pod)
	if pending != nil && (w.facts.Resize == nil || *w.facts.Resize != *pending) {
		w.m.event(pod, "", corev1.EventTypeWarning, "Resize"+pending.Reason, "Pod resize "+pending.Reason+": "+pending.Message)
	}
	w.facts.Pod, w.facts.Resize = granted, pending
	if podlife.AllocationOf(granted).Apply(before) != before {
		w.facts.Resizing = true
		delete(w.facts.Failures, podlife.Step{Kind: podlife.ResizePod}.Key())
		w.m.event(pod, "", corev1.EventTypeNormal, "ResizeStarted", "Pod resize started")
	}
}

// allocate returns the pod with the resources granted to it, and why these are not
// the ones it asks for.
func (m *Manager) allocate(w *worker, pod *corev1.Pod) (*corev1.Pod, *podlife.Verdict) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w.allocation.desired = pod
	freed := m.allocateLocked(w)
	if freed {
		m.retryResizesLocked(w)
	}
	return w.allocation.granted.Apply(pod), w.allocation.pending
}

// allocateLocked grants what the pod asks for, if the node has it. It tells whether
// others may have more now.
func (m *Manager) allocateLocked(w *worker) (freed bool) {
	a := &w.allocation
	has := a.granted.Apply(a.desired)
	if has == a.desired {
		a.pending = nil
		return false
	}
	others := m.admittedLocked(w)
	verdict := podlife.AdmitResize(a.desired, others, m.o.NodeFacts().Allocatable)
	if verdict == nil {
		granted := podlife.AllocationOf(a.desired)
		if err := m.saveAllocation(w.uid, granted); err != nil {
			verdict = &podlife.Verdict{Reason: corev1.PodReasonDeferred, Message: "the node cannot note it: " + err.Error()}
		} else {
			a.granted, a.pending = granted, nil
			return !podlife.Grows(a.desired, has)
		}
	}
	if a.pending == nil {
		a.since = m.now()
	}
	a.pending = verdict
	return false
}

// retryResizes looks whether resources that became free serve pods that wait for more, or static
// pods that did not fit.
func (m *Manager) retryResizes() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.retryResizesLocked(nil)
	m.retryStaticLocked()
}

// retryResizesLocked goes through the waiting pods in the kubelet's order: those of
// higher priority first, then guaranteed ones, then those that have waited longest.
func (m *Manager) retryResizesLocked(except *worker) {
	var waiting []*worker
	for _, w := range m.workers {
		if w != except && w.allocation.pending != nil {
			waiting = append(waiting, w)
		}
	}
	slices.SortFunc(waiting, func(a, b *worker) int {
		x, y := a.allocation, b.allocation
		return cmp.Or(
			cmp.Compare(priority(y.desired), priority(x.desired)),
			cmp.Compare(rank(x.desired), rank(y.desired)),
			x.since.Compare(y.since),
			cmp.Compare(a.uid, b.uid),
		)
	})
	for _, w := range waiting {
		before := *w.allocation.pending
		m.allocateLocked(w)
		if now := w.allocation.pending; now == nil || *now != before {
			w.post(func() { w.adopt(w.desired()) })
		}
	}
}

// desired is the newest version of the pod.
func (w *worker) desired() *corev1.Pod {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	return w.allocation.desired
}

func priority(pod *corev1.Pod) int32 {
	if pod.Spec.Priority == nil {
		return 0
	}
	return *pod.Spec.Priority
}

func rank(pod *corev1.Pod) int {
	if podlife.QOS(pod) == corev1.PodQOSGuaranteed {
		return 0
	}
	return 1
}

// resizeTarget is a running container that takes new resources as it runs.
type resizeTarget struct {
	id        string
	container *corev1.Container
	want      corev1.ResourceRequirements
	has       *corev1.ResourceRequirements
}

// resizePod gives the pod's cgroup and running containers the resources in the spec.
func (w *worker) resizePod(ctx context.Context) func() (func(), error) {
	m, pod := w.m, w.facts.Pod
	targets, restarting := w.resizeTargets()
	return func() (func(), error) {
		done, err := m.applyResources(ctx, pod, targets)
		if err == nil && !restarting {
			_, err = m.cgroups.Ensure(pod) // what sinks, sinks when all containers fit into it
		}
		return func() {
			for i := range w.facts.Containers {
				if r, ok := done[w.facts.Containers[i].ID]; ok {
					w.facts.Containers[i].Resources = r
				}
			}
			if err == nil && !restarting && podlife.AllocationOf(pod).Apply(w.facts.Pod) == w.facts.Pod {
				w.facts.Resizing = false
				w.m.event(pod, "", corev1.EventTypeNormal, "ResizeCompleted", "Pod resize completed")
			}
		}, err
	}
}

// resizeTargets are the running containers to update, and whether others have yet to
// restart.
func (w *worker) resizeTargets() (targets []resizeTarget, restarting bool) {
	pod := w.facts.Pod
	for _, obs := range w.facts.Containers {
		c := containerOf(pod, obs.Name)
		if obs.State != podlife.Running || obs.Resources == nil || c == nil {
			continue
		}
		want := podlife.Effective(&pod.Spec, c)
		changed := podlife.Changed(want, *obs.Resources)
		switch {
		case slices.ContainsFunc(changed, func(name corev1.ResourceName) bool { return podlife.RestartsFor(c, name) }):
			restarting = true
		case len(changed) > 0:
			targets = append(targets, resizeTarget{obs.ID, c, want, obs.Resources})
		}
	}
	return targets, restarting
}

func (m *Manager) applyResources(ctx context.Context, pod *corev1.Pod, targets []resizeTarget) (done map[string]*corev1.ResourceRequirements, err error) {
	if err := m.checkMemory(pod, targets); err != nil {
		return nil, err
	}
	if err := m.cgroups.Grow(pod); err != nil {
		return nil, err
	}
	done = map[string]*corev1.ResourceRequirements{}
	for _, t := range targets {
		r := &runtimeapi.ContainerResources{Linux: resources(pod, t.container, m.memory)}
		if err := m.o.Runtime.UpdateContainerResources(ctx, t.id, r); err != nil {
			return done, fmt.Errorf("container %s: %w", t.container.Name, err)
		}
		done[t.id] = t.want.DeepCopy()
	}
	return done, nil
}

// checkMemory refuses limits below what is in use: the kernel would take the
// container down, or refuse after others have been changed.
func (m *Manager) checkMemory(pod *corev1.Pod, targets []resizeTarget) error {
	var errs []error
	for _, t := range targets {
		want, has := t.want.Limits.Memory().Value(), t.has.Limits.Memory().Value()
		if want == 0 || has != 0 && want >= has {
			continue
		}
		if used, ok := m.cgroups.MemoryUsage(pod, t.id); ok && used >= want {
			errs = append(errs, fmt.Errorf("attempting to set container %q memory limit (%d) below current usage (%d)", t.container.Name, want, used))
		}
	}
	if limit, used, below := m.cgroups.BelowUsage(pod); below {
		errs = append(errs, fmt.Errorf("attempting to set pod memory limit (%d) below current usage (%d)", limit, used))
	}
	if len(errs) > 0 {
		return fmt.Errorf("cannot decrease memory limits: %w", errors.Join(errs...))
	}
	return nil
}

// createdWith reads back the resources that a container was created with, or nil.
func createdWith(annotations map[string]string) *corev1.ResourceRequirements {
	text, ok := annotations[resourcesAnnotation]
	if !ok {
		return nil
	}
	r := &corev1.ResourceRequirements{}
	if err := json.Unmarshal([]byte(text), r); err != nil {
		return nil
	}
	return r
}

// resourcesText is the annotation that createdWith reads.
func resourcesText(pod *corev1.Pod, c *corev1.Container) string {
	r := podlife.Effective(&pod.Spec, c)
	text, err := json.Marshal(corev1.ResourceRequirements{Requests: r.Requests, Limits: r.Limits})
	if err != nil {
		return "{}" // a quantity can always be written
	}
	return string(text)
}

// doubt forgets of a container from before the agent's start what may have been
// changed while it ran: what is written nowhere has to be set once more.
func (w *worker) doubt(c *podlife.Container) {
	spec := containerOf(w.facts.Pod, c.Name)
	if !w.resized || c.Resources == nil || spec == nil {
		return
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		if !podlife.RestartsFor(spec, name) {
			delete(c.Resources.Requests, name)
			delete(c.Resources.Limits, name)
		}
	}
}
