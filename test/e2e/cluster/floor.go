package cluster

import (
	"context"
	"fmt"
	"os"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/everynode/everynode/internal/cli/containerd"
	"github.com/everynode/everynode/internal/cli/layout"
	"github.com/everynode/everynode/internal/cli/teardown"
)

// Floor runs a pod of one container through the node's runtime, without any of ours, removes it,
// and returns how long sandbox, create and start took.
func (n *Node) Floor(ctx context.Context, name, image string, args []string) (time.Duration, error) {
	r, err := containerd.Connect(ctx, n.outside())
	if err != nil {
		return 0, err
	}
	defer func() { _ = r.Close(ctx) }()
	sandbox := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "floor", Uid: name},
		Hostname:     name,
		LogDirectory: "/var/log/floor/" + name,
		Linux:        &runtimeapi.LinuxPodSandboxConfig{CgroupParent: "/" + teardown.CgroupParent(n.Name) + "/floor"},
	}
	container := &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "app"},
		Image:    &runtimeapi.ImageSpec{Image: image},
		Args:     args,
		LogPath:  "app.log",
		Linux:    &runtimeapi.LinuxContainerConfig{},
	}
	if err := os.MkdirAll(n.Path(sandbox.LogDirectory), 0o755); err != nil {
		return 0, err
	}
	began := time.Now()
	sandboxID, err := r.RunPodSandbox(ctx, sandbox, "")
	if err != nil {
		return 0, fmt.Errorf("sandbox: %w", err)
	}
	containerID, err := r.CreateContainer(ctx, sandboxID, container, sandbox)
	if err == nil {
		err = r.StartContainer(ctx, containerID)
	}
	took := time.Since(began)
	if err != nil {
		return 0, fmt.Errorf("container: %w", err)
	}
	if err := r.StopPodSandbox(ctx, sandboxID); err != nil {
		return 0, fmt.Errorf("stop: %w", err)
	}
	return took, r.RemovePodSandbox(ctx, sandboxID)
}

// outside is where the real machine finds the node's socket: through the root of its init. gRPC
// dials from threads that are not in the node's namespaces.
func (n *Node) outside() layout.Layout {
	return layout.Layout{RunDir: fmt.Sprintf("/proc/%d/root%s", n.PID(), n.cluster.layout.RunDir)}
}
