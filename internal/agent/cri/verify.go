package cri

import (
	"context"
	"errors"
	"fmt"

	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ErrBroken says that the runtime answered, and that the answer lacks what the CRI promises. As with no
// answer at all, nothing is known then: a container that has lost its name in a list has not ended.
var ErrBroken = errors.New("the container runtime's answer is broken")

func broken(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrBroken, fmt.Sprintf(format, args...))
}

// Verified is a runtime whose answers have what the agent relies on; others are ErrBroken. What
// Connect returns is verified.
func Verified(r internalapi.RuntimeService) internalapi.RuntimeService { return verified{r} }

type verified struct{ internalapi.RuntimeService }

// Status implements internalapi.RuntimeService, as do the others of verified.
func (v verified) Status(ctx context.Context, verbose bool) (*runtimeapi.StatusResponse, error) {
	r, err := v.RuntimeService.Status(ctx, verbose)
	if err == nil && r.GetStatus() == nil {
		err = broken("its status is empty")
	}
	return r, err
}

func (v verified) RunPodSandbox(ctx context.Context, config *runtimeapi.PodSandboxConfig, handler string) (string, error) {
	id, err := v.RuntimeService.RunPodSandbox(ctx, config, handler)
	if err == nil && id == "" {
		err = broken("the new sandbox has no ID")
	}
	return id, err
}

func (v verified) PodSandboxStatus(ctx context.Context, id string, verbose bool) (*runtimeapi.PodSandboxStatusResponse, error) {
	r, err := v.RuntimeService.PodSandboxStatus(ctx, id, verbose)
	if err == nil && r.GetStatus().GetId() != id {
		err = broken("asked for sandbox %s, it tells of %q", id, r.GetStatus().GetId())
	}
	return r, err
}

func (v verified) ListPodSandbox(ctx context.Context, filter *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error) {
	list, err := v.RuntimeService.ListPodSandbox(ctx, filter)
	for _, s := range list {
		if _, known := runtimeapi.PodSandboxState_name[int32(s.GetState())]; err == nil && (s.GetId() == "" || s.GetMetadata() == nil || !known) {
			err = broken("sandbox %q in the list has no ID, no name, or the unknown state %v", s.GetId(), s.GetState())
		}
	}
	return list, err
}

func (v verified) CreateContainer(ctx context.Context, sandbox string, config *runtimeapi.ContainerConfig, pod *runtimeapi.PodSandboxConfig) (string, error) {
	id, err := v.RuntimeService.CreateContainer(ctx, sandbox, config, pod)
	if err == nil && id == "" {
		err = broken("the new container has no ID")
	}
	return id, err
}

func (v verified) ContainerStatus(ctx context.Context, id string, verbose bool) (*runtimeapi.ContainerStatusResponse, error) {
	r, err := v.RuntimeService.ContainerStatus(ctx, id, verbose)
	if err == nil && r.GetStatus().GetId() != id {
		err = broken("asked for container %s, it tells of %q", id, r.GetStatus().GetId())
	}
	if _, known := runtimeapi.ContainerState_name[int32(r.GetStatus().GetState())]; err == nil && !known {
		err = broken("container %s is in the unknown state %v", id, r.GetStatus().GetState())
	}
	return r, err
}

func (v verified) ListContainers(ctx context.Context, filter *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	list, err := v.RuntimeService.ListContainers(ctx, filter)
	for _, c := range list {
		if _, known := runtimeapi.ContainerState_name[int32(c.GetState())]; err == nil && (c.GetId() == "" || c.GetMetadata() == nil || !known) {
			err = broken("container %q in the list has no ID, no name, or the unknown state %v", c.GetId(), c.GetState())
		}
	}
	return list, err
}
