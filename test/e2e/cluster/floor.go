package cluster

import (
	"context"
	"fmt"
	"os"
	"time"

	"go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/sync/errgroup"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	cri "k8s.io/cri-client/pkg"

	"github.com/everynode/everynode/internal/cli/layout"
	"github.com/everynode/everynode/internal/cli/teardown"
)

// Runtime connects to the node's container runtime, as patient with each call as agent and kubelet
// are: on a busy machine the last of many pods takes its time.
func (n *Node) Runtime(ctx context.Context) (internalapi.RuntimeService, error) {
	return cri.NewRemoteRuntimeService(ctx, n.outside().RuntimeEndpoint(), 2*time.Minute, noop.NewTracerProvider(), false)
}

// FloorPods is what Floor runs.
type FloorPods struct {
	Name, Image string
	Args        []string
	// Count pods, and how many of them are started or stopped at once.
	Count, AtOnce int
}

// Floor starts and stops pods of one container through a node's runtime, without any of ours.
type Floor struct {
	FloorPods
	n                     *Node
	r                     internalapi.RuntimeService
	sandboxes, containers []string
}

// NewFloor connects to the node's runtime.
func (n *Node) NewFloor(ctx context.Context, p FloorPods) (*Floor, error) {
	r, err := n.Runtime(ctx)
	if err != nil {
		return nil, err
	}
	return &Floor{FloorPods: p, n: n, r: r, sandboxes: make([]string, p.Count), containers: make([]string, p.Count)}, nil
}

// Close ends the connection.
func (f *Floor) Close(ctx context.Context) { _ = f.r.Close(ctx) }

// Floor is what both take, one after the other.
func (n *Node) Floor(ctx context.Context, p FloorPods) (start, stop time.Duration, err error) {
	f, err := n.NewFloor(ctx, p)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close(ctx)
	if start, err = f.Start(ctx); err == nil {
		stop, err = f.Stop(ctx)
	}
	return start, stop, err
}

// Start returns how long it took until all had started (sandbox, create, start).
func (f *Floor) Start(ctx context.Context) (time.Duration, error) {
	return f.each(ctx, func(ctx context.Context, i int) (err error) {
		f.sandboxes[i], f.containers[i], err = f.n.floorPod(ctx, f.r, f.FloorPods, fmt.Sprintf("%s-%d", f.Name, i))
		return err
	})
}

// Stop returns how long it took until all had been stopped and removed.
func (f *Floor) Stop(ctx context.Context) (time.Duration, error) {
	return f.each(ctx, func(ctx context.Context, i int) error {
		if err := f.r.StopContainer(ctx, f.containers[i], 2); err != nil {
			return fmt.Errorf("stop: %w", err)
		}
		if err := f.r.StopPodSandbox(ctx, f.sandboxes[i]); err != nil {
			return fmt.Errorf("stop: %w", err)
		}
		return f.r.RemovePodSandbox(ctx, f.sandboxes[i])
	})
}

func (f *Floor) each(ctx context.Context, do func(ctx context.Context, i int) error) (time.Duration, error) {
	began := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(f.AtOnce)
	for i := range f.Count {
		group.Go(func() error { return do(ctx, i) })
	}
	err := group.Wait()
	return time.Since(began), err
}

func (n *Node) floorPod(ctx context.Context, r internalapi.RuntimeService, p FloorPods, name string) (sandboxID, containerID string, err error) {
	sandbox := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "floor", Uid: name},
		Hostname:     name,
		LogDirectory: "/var/log/floor/" + name,
		Linux:        &runtimeapi.LinuxPodSandboxConfig{CgroupParent: "/" + teardown.CgroupParent(n.Name) + "/floor"},
	}
	container := &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "app"},
		Image:    &runtimeapi.ImageSpec{Image: p.Image},
		Args:     p.Args,
		LogPath:  "app.log",
		Linux:    &runtimeapi.LinuxContainerConfig{},
	}
	if err := os.MkdirAll(n.Path(sandbox.LogDirectory), 0o755); err != nil {
		return "", "", err
	}
	if sandboxID, err = r.RunPodSandbox(ctx, sandbox, ""); err != nil {
		return "", "", fmt.Errorf("sandbox: %w", err)
	}
	if containerID, err = r.CreateContainer(ctx, sandboxID, container, sandbox); err != nil {
		return "", "", fmt.Errorf("container: %w", err)
	}
	return sandboxID, containerID, r.StartContainer(ctx, containerID)
}

// outside is where the real machine finds the node's socket: through the root of its init. gRPC
// dials from threads that are not in the node's namespaces.
func (n *Node) outside() layout.Layout {
	return layout.Layout{RunDir: fmt.Sprintf("/proc/%d/root%s", n.PID(), n.cluster.layout.RunDir)}
}
