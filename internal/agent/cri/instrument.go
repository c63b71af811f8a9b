package cri

import (
	"context"
	"time"

	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/everynode/everynode/internal/agent/metrics"
)

// countedRuntime counts and times the calls that the agent makes.
type countedRuntime struct{ internalapi.RuntimeService }

// countedImages does the same for images.
type countedImages struct {
	internalapi.ImageManagerService
}

// counted makes a call and notes it under the kubelet's name for it.
func counted[T any](kind string, call func() (T, error)) (T, error) {
	began := time.Now()
	result, err := call()
	metrics.Operation(kind, time.Since(began), err)
	return result, err
}

func countedError(kind string, call func() error) error {
	_, err := counted(kind, func() (struct{}, error) { return struct{}{}, call() })
	return err
}

// Version implements internalapi.RuntimeService, as do the others of countedRuntime.
func (c countedRuntime) Version(ctx context.Context, version string) (*runtimeapi.VersionResponse, error) {
	return counted("version", func() (*runtimeapi.VersionResponse, error) { return c.RuntimeService.Version(ctx, version) })
}

func (c countedRuntime) Status(ctx context.Context, verbose bool) (*runtimeapi.StatusResponse, error) {
	return counted("status", func() (*runtimeapi.StatusResponse, error) { return c.RuntimeService.Status(ctx, verbose) })
}

func (c countedRuntime) RunPodSandbox(ctx context.Context, config *runtimeapi.PodSandboxConfig, handler string) (string, error) {
	return counted("run_podsandbox", func() (string, error) { return c.RuntimeService.RunPodSandbox(ctx, config, handler) })
}

func (c countedRuntime) StopPodSandbox(ctx context.Context, id string) error {
	return countedError("stop_podsandbox", func() error { return c.RuntimeService.StopPodSandbox(ctx, id) })
}

func (c countedRuntime) RemovePodSandbox(ctx context.Context, id string) error {
	return countedError("remove_podsandbox", func() error { return c.RuntimeService.RemovePodSandbox(ctx, id) })
}

func (c countedRuntime) PodSandboxStatus(ctx context.Context, id string, verbose bool) (*runtimeapi.PodSandboxStatusResponse, error) {
	return counted("podsandbox_status", func() (*runtimeapi.PodSandboxStatusResponse, error) {
		return c.RuntimeService.PodSandboxStatus(ctx, id, verbose)
	})
}

func (c countedRuntime) ListPodSandbox(ctx context.Context, filter *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error) {
	return counted("list_podsandbox", func() ([]*runtimeapi.PodSandbox, error) { return c.RuntimeService.ListPodSandbox(ctx, filter) })
}

func (c countedRuntime) CreateContainer(ctx context.Context, sandbox string, config *runtimeapi.ContainerConfig, pod *runtimeapi.PodSandboxConfig) (string, error) {
	return counted("create_container", func() (string, error) { return c.RuntimeService.CreateContainer(ctx, sandbox, config, pod) })
}

func (c countedRuntime) StartContainer(ctx context.Context, id string) error {
	return countedError("start_container", func() error { return c.RuntimeService.StartContainer(ctx, id) })
}

func (c countedRuntime) StopContainer(ctx context.Context, id string, timeout int64) error {
	return countedError("stop_container", func() error { return c.RuntimeService.StopContainer(ctx, id, timeout) })
}

func (c countedRuntime) RemoveContainer(ctx context.Context, id string) error {
	return countedError("remove_container", func() error { return c.RuntimeService.RemoveContainer(ctx, id) })
}

func (c countedRuntime) ListContainers(ctx context.Context, filter *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	return counted("list_containers", func() ([]*runtimeapi.Container, error) { return c.RuntimeService.ListContainers(ctx, filter) })
}

func (c countedRuntime) ContainerStatus(ctx context.Context, id string, verbose bool) (*runtimeapi.ContainerStatusResponse, error) {
	return counted("container_status", func() (*runtimeapi.ContainerStatusResponse, error) {
		return c.RuntimeService.ContainerStatus(ctx, id, verbose)
	})
}

func (c countedRuntime) ListContainerStats(ctx context.Context, filter *runtimeapi.ContainerStatsFilter) ([]*runtimeapi.ContainerStats, error) {
	return counted("list_container_stats", func() ([]*runtimeapi.ContainerStats, error) {
		return c.RuntimeService.ListContainerStats(ctx, filter)
	})
}

func (c countedRuntime) ReopenContainerLog(ctx context.Context, id string) error {
	return countedError("reopen_container_log", func() error { return c.RuntimeService.ReopenContainerLog(ctx, id) })
}

func (c countedRuntime) ExecSync(ctx context.Context, id string, cmd []string, timeout time.Duration) (stdout, stderr []byte, err error) {
	began := time.Now()
	stdout, stderr, err = c.RuntimeService.ExecSync(ctx, id, cmd, timeout)
	metrics.Operation("exec_sync", time.Since(began), err)
	return stdout, stderr, err
}

func (c countedRuntime) Exec(ctx context.Context, request *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	return counted("exec", func() (*runtimeapi.ExecResponse, error) { return c.RuntimeService.Exec(ctx, request) })
}

func (c countedRuntime) Attach(ctx context.Context, request *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	return counted("attach", func() (*runtimeapi.AttachResponse, error) { return c.RuntimeService.Attach(ctx, request) })
}

func (c countedRuntime) PortForward(ctx context.Context, request *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	return counted("port_forward", func() (*runtimeapi.PortForwardResponse, error) { return c.RuntimeService.PortForward(ctx, request) })
}

// ListImages implements internalapi.ImageManagerService, as do the others of countedImages.
func (c countedImages) ListImages(ctx context.Context, filter *runtimeapi.ImageFilter) ([]*runtimeapi.Image, error) {
	return counted("list_images", func() ([]*runtimeapi.Image, error) { return c.ImageManagerService.ListImages(ctx, filter) })
}

func (c countedImages) ImageStatus(ctx context.Context, image *runtimeapi.ImageSpec, verbose bool) (*runtimeapi.ImageStatusResponse, error) {
	return counted("image_status", func() (*runtimeapi.ImageStatusResponse, error) {
		return c.ImageManagerService.ImageStatus(ctx, image, verbose)
	})
}

func (c countedImages) PullImage(ctx context.Context, image *runtimeapi.ImageSpec, auth *runtimeapi.AuthConfig, sandbox *runtimeapi.PodSandboxConfig) (string, error) {
	return counted("pull_image", func() (string, error) { return c.ImageManagerService.PullImage(ctx, image, auth, sandbox) })
}

func (c countedImages) RemoveImage(ctx context.Context, image *runtimeapi.ImageSpec) error {
	return countedError("remove_image", func() error { return c.ImageManagerService.RemoveImage(ctx, image) })
}

func (c countedImages) ImageFsInfo(ctx context.Context) (*runtimeapi.ImageFsInfoResponse, error) {
	return counted("image_fs_info", func() (*runtimeapi.ImageFsInfoResponse, error) { return c.ImageManagerService.ImageFsInfo(ctx) })
}
