package containerd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/sys/unix"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	cri "k8s.io/cri-client/pkg"

	"github.com/everynode/everynode/internal/cli/layout"
)

// Command is the runtime's command line; the caller sets its output and starts it.
func Command(tools Tools, l layout.Layout) *exec.Cmd {
	cmd := exec.Command(tools.Containerd, "--config", l.ContainerdConfig())
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin")
	cmd.Dir = "/"
	return cmd
}

// ShareMounts makes the root mount shared where it is private (systemd has it shared already):
// pods with mountPropagation need it, and containerd has to be started after it.
func ShareMounts() error {
	mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter("/"))
	if err != nil {
		return fmt.Errorf("mount of /: %w", err)
	}
	if len(mounts) > 0 && strings.Contains(mounts[0].Optional, "shared:") {
		return nil
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("making / a shared mount: %w; without it no pod can use mountPropagation", err)
	}
	return nil
}

// Connect waits until the runtime on the socket answers over CRI and says that it is ready.
func Connect(ctx context.Context, l layout.Layout) (internalapi.RuntimeService, error) {
	for {
		runtime, err := connect(ctx, l)
		if err == nil {
			return runtime, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("containerd on %s: %w", l.ContainerdSocket(), errors.Join(err, context.Cause(ctx)))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Ready asks the runtime once whether it is ready to run containers.
func Ready(ctx context.Context, l layout.Layout) error {
	runtime, err := connect(ctx, l)
	if err != nil {
		return err
	}
	return runtime.Close(ctx)
}

func connect(ctx context.Context, l layout.Layout) (internalapi.RuntimeService, error) {
	return ConnectTo(ctx, l.RuntimeEndpoint())
}

// ConnectTo connects to the runtime at an endpoint, unix:///PATH, if it is there and ready.
func ConnectTo(ctx context.Context, endpoint string) (internalapi.RuntimeService, error) {
	// Without this look, gRPC would wait for the socket to appear, with a back-off of seconds, and
	// log each time that it does not.
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", strings.TrimPrefix(endpoint, "unix://"))
	if err != nil {
		return nil, err
	}
	_ = conn.Close()
	runtime, err := cri.NewRemoteRuntimeService(ctx, endpoint, 3*time.Second, noop.NewTracerProvider(), false)
	if err != nil {
		return nil, err
	}
	status, err := runtime.Status(ctx, false)
	if err == nil {
		err = runtimeReady(status)
	}
	if err != nil {
		return nil, errors.Join(err, runtime.Close(ctx))
	}
	return runtime, nil
}

func runtimeReady(s *runtimeapi.StatusResponse) error {
	for _, c := range s.GetStatus().GetConditions() {
		if c.Type == runtimeapi.RuntimeReady && !c.Status {
			return fmt.Errorf("not ready: %s %s", c.Reason, c.Message)
		}
	}
	return nil
}
