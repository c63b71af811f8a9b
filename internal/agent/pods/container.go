package pods

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/agent/cri"
	"github.com/everynode/everynode/internal/agent/env"
	"github.com/everynode/everynode/internal/agent/images"
	"github.com/everynode/everynode/internal/agent/manifests"
	"github.com/everynode/everynode/internal/agent/volumes"
	"github.com/everynode/everynode/internal/decide/podlife"
	"github.com/everynode/everynode/internal/sleep"
)

// Reasons of containers that could not be started, as the kubelet's users know them.
const (
	errConfig    = "CreateContainerConfigError"
	errCreate    = "CreateContainerError"
	errRun       = "RunContainerError"
	errPostStart = "PostStartHookError"
)

// failure is why a step failed, in the words of a container's waiting state. No
// reason: the runtime did not answer.
type failure struct {
	reason string
	err    error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// asFailure keeps what the runtime did not answer from being shown as the pod's fault.
func asFailure(reason string, err error) error {
	if cri.IsUnavailable(err) {
		reason = ""
	}
	return &failure{reason, err}
}

// text is an error's message without gRPC's wrapping, and without the reason that is
// shown beside it.
func text(err error) string {
	var img *images.Error
	if errors.As(err, &img) {
		return img.Message
	}
	var s interface{ GRPCStatus() *status.Status }
	if errors.As(err, &s) {
		return s.GRPCStatus().Message()
	}
	return err.Error()
}

// start is all that one start of a container needs, so that it can run beside
// the worker.
type start struct {
	pod       *corev1.Pod
	container *corev1.Container
	step      podlife.Step
	sandbox   podlife.Sandbox
	image     images.Image
	volumes   map[string]volumes.Volume
	// targetID is the container whose processes an ephemeral one shall see.
	targetID string
	known    ids
	// resizing: the pod's cgroup may be too small for what the container gets.
	resizing bool
}

// facts are what the container may learn about its pod and node.
func (m *Manager) facts(s start) volumes.Facts {
	f := m.o.NodeFacts()
	f.PodIPs = s.sandbox.IPs
	if s.pod.Spec.HostNetwork {
		f.PodIPs = f.HostIPs
	}
	return f
}

// createAndStart creates and starts a container, and says how it is. An error
// after the creation comes with the container.
func (m *Manager) createAndStart(ctx context.Context, s start) (podlife.Container, error) {
	cfg, cleanup, err := m.containerConfig(ctx, s)
	defer cleanup()
	if err != nil {
		return podlife.Container{}, asFailure(errConfig, err)
	}
	sandbox, err := m.sandboxConfig(s.pod, s.sandbox.Attempt)
	if err != nil {
		return podlife.Container{}, asFailure(errConfig, err)
	}
	release, err := m.starts.slot(ctx, finishes)
	if err != nil {
		return podlife.Container{}, asFailure("", err)
	}
	defer release()
	if s.resizing {
		if err := m.cgroups.Grow(s.pod); err != nil {
			return podlife.Container{}, asFailure(errCreate, err)
		}
	}
	id, err := m.o.Runtime.CreateContainer(ctx, s.sandbox.ID, cfg, sandbox)
	if err != nil {
		return podlife.Container{}, asFailure(errCreate, err)
	}
	m.event(s.pod, s.container.Name, corev1.EventTypeNormal, "Created", "Container created")
	if err := m.killStrays(ctx, s.pod, s.known.with(id)); err != nil {
		return podlife.Container{}, asFailure(errRun, err)
	}
	status, err := m.run(ctx, id)
	if err != nil {
		return podlife.Container{}, asFailure(errRun, err)
	}
	m.event(s.pod, s.container.Name, corev1.EventTypeNormal, "Started", "Container started")
	if err := m.linkLog(s.pod, s.container.Name, s.step.Attempt, id); err != nil {
		klog.ErrorS(err, "Log shippers will not find a container's log", "pod", klog.KObj(s.pod), "container", s.container.Name)
	}
	c := podlife.Container{
		ID: id, Name: s.container.Name, SandboxID: s.sandbox.ID, Attempt: s.step.Attempt,
		Created: unix(status.GetCreatedAt()), Hash: podlife.Hash(s.container), Delay: s.step.Delay, Resources: new(podlife.Effective(&s.pod.Spec, s.container)),
	}
	return withStatus(c, status), nil
}

// run starts the container and reads it back, with the times the runtime has noted. A
// runtime that is killed meanwhile may have started it: the one that comes back knows.
func (m *Manager) run(ctx context.Context, id string) (*runtimeapi.ContainerStatus, error) {
	err := m.o.Runtime.StartContainer(ctx, id)
	if err != nil && !cri.IsUnavailable(err) {
		return nil, err
	}
	for {
		r, statusErr := m.o.Runtime.ContainerStatus(ctx, id, false)
		switch {
		case statusErr == nil && (err == nil || r.GetStatus().GetState() == runtimeapi.ContainerState_CONTAINER_RUNNING):
			return r.GetStatus(), nil
		case statusErr == nil:
			return nil, err
		case !cri.IsUnavailable(statusErr) || ctx.Err() != nil:
			return nil, statusErr
		}
		sleep.For(ctx, retryObserve)
	}
}

// containerConfig translates the container for the runtime. cleanup is never nil
// and to be called in the end.
func (m *Manager) containerConfig(ctx context.Context, s start) (cfg *runtimeapi.ContainerConfig, cleanup func(), err error) {
	cleanup = func() {}
	c := s.container
	vars, err := env.Make(ctx, s.pod, c, m.facts(s), m.o.Services(m.hasList() && !manifests.IsStatic(s.pod)), m.o.Objects, volumes.Opener(s.volumes))
	if err != nil {
		return nil, cleanup, err
	}
	expand := func(text string) string { return env.Expand(text, vars) }
	mounts, undo, err := m.o.Volumes.Mounts(s.pod, c, s.volumes, expand)
	if undo != nil {
		cleanup = undo
	}
	if err != nil {
		return nil, cleanup, err
	}
	own, err := m.ownMounts(s)
	if err != nil {
		return nil, cleanup, err
	}
	devices, err := volumes.Devices(c, s.volumes)
	if err != nil {
		return nil, cleanup, err
	}
	security, err := m.containerSecurity(s.pod, c, s.image)
	if err != nil {
		return nil, cleanup, err
	}
	if s.targetID != "" && security.NamespaceOptions.Pid == runtimeapi.NamespaceMode_CONTAINER {
		security.NamespaceOptions.Pid = runtimeapi.NamespaceMode_TARGET
		security.NamespaceOptions.TargetId = s.targetID
	}
	if err := os.MkdirAll(filepath.Join(m.podLogDir(s.pod.Namespace, s.pod.Name, s.pod.UID), c.Name), 0o755); err != nil {
		return nil, cleanup, fmt.Errorf("make the container's log folder: %w", err)
	}
	return &runtimeapi.ContainerConfig{
		Metadata:    &runtimeapi.ContainerMetadata{Name: c.Name, Attempt: s.step.Attempt},
		Image:       &runtimeapi.ImageSpec{Image: s.image.Ref, UserSpecifiedImage: c.Image},
		Command:     expandAll(c.Command, expand),
		Args:        expandAll(c.Args, expand),
		WorkingDir:  c.WorkingDir,
		Envs:        keyValues(vars),
		Mounts:      append(mounts, own...),
		Devices:     devices,
		Labels:      m.containerLabels(s.pod, c),
		Annotations: containerAnnotations(s.pod, c, s.step),
		LogPath:     logPath(c.Name, s.step.Attempt),
		Stdin:       c.Stdin,
		StdinOnce:   c.StdinOnce,
		Tty:         c.TTY,
		StopSignal:  stopSignal(c),
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources:       resources(s.pod, c, m.memory),
			SecurityContext: security,
		},
	}, cleanup, nil
}

// stopSignal is the container's own one, if its spec names any.
func stopSignal(c *corev1.Container) runtimeapi.Signal {
	if c.Lifecycle == nil || c.Lifecycle.StopSignal == nil {
		return runtimeapi.Signal_RUNTIME_DEFAULT
	}
	return runtimeapi.Signal(runtimeapi.Signal_value[string(*c.Lifecycle.StopSignal)])
}

func expandAll(words []string, expand func(string) string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = expand(w)
	}
	return out
}

func keyValues(vars []env.Var) []*runtimeapi.KeyValue {
	out := make([]*runtimeapi.KeyValue, len(vars))
	for i, v := range vars {
		out[i] = &runtimeapi.KeyValue{Key: v.Name, Value: []byte(v.Value)}
	}
	return out
}

// ownMounts are the agent's own files in the container: hosts and the
// termination message.
func (m *Manager) ownMounts(s start) ([]*runtimeapi.Mount, error) {
	var mounts []*runtimeapi.Mount
	hosts, err := m.hostsMount(s.pod, s.container, m.facts(s).PodIPs)
	if err != nil {
		return nil, err
	}
	if hosts != nil {
		mounts = append(mounts, hosts)
	}
	if at := s.container.TerminationMessagePath; at != "" {
		file := filepath.Join(m.podFiles(s.pod.UID), s.container.Name, strconv.FormatUint(uint64(s.step.Attempt), 10))
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("termination message file: %w", err)
		}
		if err := writeFile(file, []byte{}, 0o666); err != nil {
			return nil, fmt.Errorf("termination message file: %w", err)
		}
		mounts = append(mounts, &runtimeapi.Mount{HostPath: file, ContainerPath: at})
	}
	return mounts, nil
}
