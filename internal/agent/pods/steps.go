package pods

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/agent/cri"
	"github.com/everynode/everynode/internal/agent/images"
	"github.com/everynode/everynode/internal/agent/metrics"
	"github.com/everynode/everynode/internal/agent/volumes"
	"github.com/everynode/everynode/internal/decide/podlife"
)

// begin starts a step beside the worker. What it needs is copied here, in the
// worker's goroutine; what it brings is applied there again.
func (w *worker) begin(ctx context.Context, step podlife.Step, status corev1.PodStatus) {
	klog.FromContext(ctx).V(3).Info("Step begins", "step", step.Key(), "why", step.Why)
	w.facts.InFlight[step.Key()] = step
	if step.Again != podlife.No {
		w.facts.Again[step.ID] = step.Again
	}
	run := w.prepare(cri.Quiet(ctx), step, status)
	w.m.running.Go(func() {
		apply, err := run()
		w.post(func() { w.finish(ctx, step, apply, err) })
	})
}

// finish takes a step's result into the facts.
func (w *worker) finish(ctx context.Context, step podlife.Step, apply func(), err error) {
	key := step.Key()
	delete(w.facts.InFlight, key)
	switch step.Kind {
	case podlife.RunSandbox:
		metrics.PodStarted(err)
	case podlife.StartContainer:
		metrics.ContainerStarted(err)
	}
	if apply != nil {
		apply()
	}
	if err == nil {
		delete(w.facts.Failures, key)
		klog.FromContext(ctx).V(3).Info("Step is done", "step", key)
		return
	}
	if ctx.Err() != nil || w.ending && errors.Is(err, context.Canceled) {
		return
	}
	w.stale = true // what became of it, only the runtime knows
	if step.Kind == podlife.StartContainer && cri.IsNotFound(err) {
		delete(w.facts.Images, step.Container) // the image was collected, or removed by hand
	}
	f := podlife.Failure{At: w.m.now(), Count: 1, Attempt: step.Attempt, Message: text(err)}
	if old, ok := w.facts.Failures[key]; ok && old.Attempt == step.Attempt {
		f.Count = old.Count + 1
	}
	f.Reason = reasonOf(step, err)
	w.facts.Failures[key] = f
	w.complain(ctx, step, f, err)
}

// reasonOf is how a failed step shows in the container's waiting state.
func reasonOf(step podlife.Step, err error) string {
	var img *images.Error
	var fail *failure
	switch {
	case errors.As(err, &img):
		return img.Reason
	case errors.As(err, &fail):
		return fail.reason
	case cri.IsUnavailable(err):
		return ""
	}
	return string(step.Kind)
}

// complain records a failed step in the log and, where users look, as an event.
func (w *worker) complain(ctx context.Context, step podlife.Step, f podlife.Failure, err error) {
	if f.Reason == "" {
		klog.FromContext(ctx).V(2).Info("The runtime did not answer, the step will be tried again", "step", step.Key(), "err", text(err))
		return
	}
	klog.FromContext(ctx).Info("Step failed, it will be tried again", "step", step.Key(), "count", f.Count, "reason", f.Reason, "err", text(err))
	pod := w.facts.Pod
	switch step.Kind {
	case podlife.RunSandbox:
		w.m.event(pod, "", corev1.EventTypeWarning, "FailedCreatePodSandBox", "Failed to create pod sandbox: "+text(err))
	case podlife.SetUpVolumes:
		if f.Reason != string(step.Kind) {
			return // an image that is a volume: its events are recorded
		}
		w.m.event(pod, "", corev1.EventTypeWarning, "FailedMount", "MountVolume.SetUp failed for "+err.Error())
	case podlife.StartContainer:
		w.m.event(pod, step.Container, corev1.EventTypeWarning, "Failed", "Error: "+text(err))
	case podlife.ResizePod:
		if f.Count == 1 {
			w.m.event(pod, "", corev1.EventTypeWarning, "ResizeError", "Pod resize error: "+text(err))
		}
	case podlife.StopContainer, podlife.StopSandbox, podlife.TearDown:
		w.m.event(pod, "", corev1.EventTypeWarning, "FailedKillPod", "error killing pod: "+text(err))
	}
}

// prepare captures what a step needs and returns the step itself, which runs in
// a goroutine of its own and returns what to apply in the worker's.
func (w *worker) prepare(ctx context.Context, step podlife.Step, status corev1.PodStatus) func() (func(), error) {
	m, pod := w.m, w.facts.Pod
	switch step.Kind {
	case podlife.SetUpVolumes:
		return w.setUpVolumes(w.startCtx)
	case podlife.EnsureImage:
		return w.ensureImage(w.startCtx, step)
	case podlife.RunSandbox:
		known := w.knownIDs()
		return func() (func(), error) {
			s, err := m.runSandbox(ctx, pod, step.Attempt, known)
			if err != nil {
				return nil, err
			}
			return func() { w.addSandbox(s) }, nil
		}
	case podlife.StartContainer:
		return w.startContainer(ctx, step)
	case podlife.ResizePod:
		return w.resizePod(ctx)
	case podlife.PreStop:
		c, ip := containerOf(pod, step.Container), firstOf(w.podIPs())
		return func() (func(), error) {
			m.preStop(ctx, pod, c, step.ID, ip, time.Duration(step.Grace)*time.Second)
			return func() { w.facts.Hooked[step.ID] = true }, nil
		}
	case podlife.StopContainer:
		c := containerOf(pod, step.Container)
		ip := firstOf(w.podIPs())
		return func() (func(), error) {
			err := m.stopContainer(ctx, pod, c, step, ip)
			return func() { w.stale = true }, err
		}
	case podlife.RemoveContainer:
		return w.removeContainer(ctx, step)
	case podlife.StopSandbox:
		return func() (func(), error) {
			err := m.o.Runtime.StopPodSandbox(ctx, step.ID)
			if err != nil && !cri.IsNotFound(err) {
				return nil, errors.Join(err, dropBrokenResult(cniResults, step.ID))
			}
			return func() { w.stale = true }, nil
		}
	case podlife.RemoveSandbox:
		return w.removeSandbox(ctx, step)
	case podlife.TearDown:
		return func() (func(), error) {
			if err := errors.Join(m.o.Volumes.Teardown(ctx, pod.UID), m.cgroups.Remove(pod.UID)); err != nil {
				return nil, err
			}
			return func() { w.facts.TornDown, w.facts.VolumesReady, w.vols = true, false, nil }, nil
		}
	case podlife.DeletePod:
		return func() (func(), error) {
			if err := m.finalDelete(ctx, pod, status); err != nil {
				return nil, err
			}
			return func() { w.facts.Gone = true }, nil
		}
	}
	return func() (func(), error) { return nil, fmt.Errorf("unknown step %s", step.Kind) }
}

func (w *worker) setUpVolumes(ctx context.Context) func() (func(), error) {
	m, pod := w.m, w.facts.Pod
	return func() (func(), error) {
		vols, err := m.o.Volumes.Setup(ctx, pod, m.o.NodeFacts())
		if err != nil {
			return nil, err
		}
		if err := m.mountImages(ctx, pod, vols); err != nil {
			return nil, err
		}
		return func() { w.vols, w.facts.VolumesReady = vols, true }, nil
	}
}

// mountImages pulls the images that the pod has as volumes, and adds these to vols.
func (m *Manager) mountImages(ctx context.Context, pod *corev1.Pod, vols map[string]volumes.Volume) error {
	for _, v := range volumes.ImageVolumes(pod) {
		cfg, err := m.sandboxConfig(pod, 0)
		if err != nil {
			return err
		}
		c := &corev1.Container{Name: v.Name, Image: v.Image.Reference, ImagePullPolicy: v.Image.PullPolicy}
		img, err := m.images.Ensure(ctx, pod, c, cfg, func(eventType, reason, message string) {
			m.event(pod, "", eventType, reason, message)
		})
		if err != nil {
			return err
		}
		if vols[v.Name], err = m.o.Volumes.MountImage(ctx, pod.UID, v.Name, img.Ref); err != nil {
			return err
		}
	}
	return nil
}

func (w *worker) ensureImage(ctx context.Context, step podlife.Step) func() (func(), error) {
	m, pod := w.m, w.facts.Pod
	c := containerOf(pod, step.Container)
	return func() (func(), error) {
		if c == nil {
			return nil, fmt.Errorf("the pod has no container %q", step.Container)
		}
		cfg, err := m.sandboxConfig(pod, 0)
		if err != nil {
			return nil, err
		}
		img, err := m.images.Ensure(ctx, pod, c, cfg, func(eventType, reason, message string) {
			m.event(pod, c.Name, eventType, reason, message)
		})
		if err != nil {
			return nil, err
		}
		return func() {
			w.images[c.Name] = img
			w.facts.Images[c.Name] = podlife.ImageReady{Image: step.Image, Ref: img.Ref, Attempt: step.Attempt}
		}, nil
	}
}

func (w *worker) startContainer(ctx context.Context, step podlife.Step) func() (func(), error) {
	m, pod := w.m, w.facts.Pod
	s := start{pod: pod, container: containerOf(pod, step.Container), step: step, volumes: w.vols, image: w.images[step.Container], known: w.knownIDs(), resizing: w.facts.Resizing}
	for _, sb := range w.facts.Sandboxes {
		if sb.ID == step.SandboxID {
			s.sandbox = sb
		}
	}
	s.targetID = w.targetOf(step.Container)
	hookCtx := w.startCtx
	return func() (func(), error) {
		if s.container == nil {
			return nil, fmt.Errorf("the pod has no container %q", step.Container)
		}
		c, err := m.createAndStart(ctx, s)
		if err != nil {
			return nil, err
		}
		add := func() { w.addContainer(c) }
		if lc := s.container.Lifecycle; lc == nil || lc.PostStart == nil {
			return add, nil
		}
		w.post(add) // it has to be known, and stoppable, while its hook runs
		err = m.postStart(hookCtx, s, c.ID)
		if err != nil && hookCtx.Err() == nil {
			stop := podlife.Step{ID: c.ID, Container: c.Name, Grace: graceOf(pod), Total: graceOf(pod), Hook: true, Why: "FailedPostStartHook"}
			err = errors.Join(err, m.stopContainer(ctx, pod, s.container, stop, firstOf(m.facts(s).PodIPs)))
		}
		return nil, err
	}
}

// targetOf is the ID of the container that an ephemeral container looks into.
func (w *worker) targetOf(name string) string {
	for _, e := range w.facts.Pod.Spec.EphemeralContainers {
		if e.Name != name || e.TargetContainerName == "" {
			continue
		}
		for _, c := range w.facts.Containers {
			if c.Name == e.TargetContainerName && c.State == podlife.Running {
				return c.ID
			}
		}
	}
	return ""
}

func (w *worker) removeContainer(ctx context.Context, step podlife.Step) func() (func(), error) {
	m, pod := w.m, w.facts.Pod
	var known podlife.Container
	for _, c := range w.facts.Containers {
		if c.ID == step.ID {
			known = c
		}
	}
	return func() (func(), error) {
		if err := m.o.Runtime.RemoveContainer(ctx, step.ID); err != nil && !cri.IsNotFound(err) {
			return nil, err
		}
		m.exits.forget(step.ID)
		if known.State != podlife.Created { // the next start has the same number and log
			m.removeLog(pod, known)
		}
		return func() { w.stale = true }, nil
	}
}

func (w *worker) removeSandbox(ctx context.Context, step podlife.Step) func() (func(), error) {
	m := w.m
	return func() (func(), error) {
		if err := m.o.Runtime.RemovePodSandbox(ctx, step.ID); err != nil && !cri.IsNotFound(err) {
			return nil, errors.Join(err, dropBrokenResult(cniResults, step.ID))
		}
		m.exits.forget(step.ID)
		return func() { w.stale = true }, nil
	}
}

// clean removes the last files of a pod of which nothing else is left.
func (m *Manager) clean(ctx context.Context, uid types.UID) {
	err := m.removeLogs(uid)
	if err == nil {
		err = os.RemoveAll(m.podFiles(uid))
	}
	if err != nil {
		klog.FromContext(ctx).Error(err, "Files of a pod that is gone are left behind", "uid", uid)
	}
}

// sweepFiles cleans up after pods that are not known.
func (m *Manager) sweepFiles(ctx context.Context, known func(types.UID) bool) {
	entries, _ := os.ReadDir(m.o.FilesDir)
	for _, e := range entries {
		if uid := types.UID(e.Name()); !known(uid) {
			m.clean(ctx, uid)
		}
	}
}

// containerOf finds a container in whatever list of the spec it is.
func containerOf(pod *corev1.Pod, name string) *corev1.Container {
	for _, c := range allContainers(pod) {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// allContainers are those of all lists of the spec.
func allContainers(pod *corev1.Pod) []*corev1.Container {
	var all []*corev1.Container
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			all = append(all, &list[i])
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		c := corev1.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		all = append(all, &c)
	}
	return all
}

func graceOf(pod *corev1.Pod) int64 {
	if g := pod.Spec.TerminationGracePeriodSeconds; g != nil {
		return *g
	}
	return corev1.DefaultTerminationGracePeriodSeconds
}
