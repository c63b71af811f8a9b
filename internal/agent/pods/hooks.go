package pods

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/agent/cri"
	"github.com/everynode/everynode/internal/agent/probes"
	"github.com/everynode/everynode/internal/decide/podlife"
	"github.com/everynode/everynode/internal/sleep"
)

// minimumGrace is what a container gets at least to end by itself, in seconds.
const minimumGrace = 2

// hook runs a postStart or preStop handler. A command that the runtime was killed under is run
// again: hooks run at least once, and the container is not to blame.
func (m *Manager) hook(ctx context.Context, c *corev1.Container, id, ip string, h *corev1.LifecycleHandler) error {
	switch {
	case h.Exec != nil:
		stdout, stderr, err := m.o.Runtime.ExecSync(ctx, id, h.Exec.Command, 0)
		for cri.IsUnavailable(err) && ctx.Err() == nil {
			sleep.For(ctx, retryObserve)
			stdout, stderr, err = m.o.Runtime.ExecSync(ctx, id, h.Exec.Command, 0)
		}
		if err != nil {
			return fmt.Errorf("Exec lifecycle hook (%v) for Container %q failed - error: %w, message: %q", h.Exec.Command, c.Name, err, string(stdout)+string(stderr))
		}
	case h.HTTPGet != nil:
		return m.httpHook(ctx, c, ip, h.HTTPGet)
	case h.Sleep != nil:
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(h.Sleep.Seconds) * time.Second):
		}
	}
	return nil
}

func (m *Manager) httpHook(ctx context.Context, c *corev1.Container, ip string, a *corev1.HTTPGetAction) error {
	host := a.Host
	if host == "" {
		host = ip
	}
	port, err := probes.Port(c, a.Port)
	if err != nil {
		return err
	}
	req, err := probes.Request(ctx, a, host, port)
	if err != nil {
		return err
	}
	return probes.Send(req)
}

// postStart runs the container's postStart hook, if it has one.
func (m *Manager) postStart(ctx context.Context, s start, id string) error {
	if s.container.Lifecycle == nil || s.container.Lifecycle.PostStart == nil {
		return nil
	}
	err := m.hook(ctx, s.container, id, firstOf(m.facts(s).PodIPs), s.container.Lifecycle.PostStart)
	if ctx.Err() != nil {
		return ctx.Err() // the pod ends
	}
	if err != nil {
		// The message may hold what the container printed: it is not for events.
		m.event(s.pod, s.container.Name, corev1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed")
		return &failure{errPostStart, err}
	}
	return nil
}

// stopContainer runs the preStop hook, then asks the runtime to end the container
// within what is left of its grace period.
func (m *Manager) stopContainer(ctx context.Context, pod *corev1.Pod, c *corev1.Container, step podlife.Step, ip string) error {
	m.event(pod, step.Container, corev1.EventTypeNormal, "Killing", step.Why)
	grace := step.Grace
	if step.Hook && grace > 0 && c != nil && c.Lifecycle != nil && c.Lifecycle.PreStop != nil {
		grace -= int64(m.preStop(ctx, pod, c, step.ID, ip, time.Duration(grace)*time.Second) / time.Second)
	}
	if step.Total > 0 {
		grace = max(grace, min(step.Total, minimumGrace))
	}
	err := m.o.Runtime.StopContainer(ctx, step.ID, grace)
	if cri.IsNotFound(err) {
		return nil
	}
	return err
}

// preStop runs the hook for at most grace, and says how long it took.
func (m *Manager) preStop(ctx context.Context, pod *corev1.Pod, c *corev1.Container, id, ip string, grace time.Duration) time.Duration {
	began := time.Now()
	hookCtx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	if err := m.hook(hookCtx, c, id, ip, c.Lifecycle.PreStop); err != nil {
		klog.ErrorS(err, "PreStop hook failed", "pod", klog.KObj(pod), "container", c.Name)
		m.event(pod, c.Name, corev1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed")
	}
	return time.Since(began)
}

func firstOf(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}
