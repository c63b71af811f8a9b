package cri

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	internalapi "k8s.io/cri-api/pkg/apis"
	criclient "k8s.io/cri-client/pkg"
	"k8s.io/klog/v2"
)

// callTimeout bounds every call to the runtime, as the kubelet's default does.
// Slow calls (pulls, stops) get longer from the client itself.
const callTimeout = 2 * time.Minute

// Errors that a caller may branch on. Connect wraps them with what to do.
var (
	// ErrNoSocket: nothing is at the endpoint's path.
	ErrNoSocket = errors.New("no container runtime socket")
	// ErrPermission: the socket is there but may not be opened.
	ErrPermission = errors.New("no permission for the container runtime socket")
	// ErrNotListening: the socket file is there but nobody answers.
	ErrNotListening = errors.New("no container runtime is listening")
	// ErrNoCRI: a containerd answers, but its CRI plugin does not.
	ErrNoCRI = errors.New("container runtime without CRI")
)

// Connection is a runtime that has answered once. Its services reconnect by
// themselves: while the runtime is down, calls fail with codes.Unavailable.
type Connection struct {
	Runtime internalapi.RuntimeService
	Images  internalapi.ImageManagerService
	// Endpoint is the "unix:///path" connected to.
	Endpoint string
	// Name and Version are the runtime's own, such as "containerd" and "1.6.20".
	Name, Version string
}

// Connect dials the endpoint ("unix:///run/containerd/containerd.sock" or a bare
// path) and asks for the runtime's version. It tries until the runtime answers
// or ctx ends, and then returns the reason of the last failure.
func Connect(ctx context.Context, endpoint string) (*Connection, error) {
	endpoint = Normalize(endpoint)
	logger := klog.FromContext(ctx)
	var reported string
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		c, err := connectOnce(ctx, endpoint)
		if err == nil {
			return c, nil
		}
		if errors.Is(err, ErrNoCRI) && ctx.Err() == nil && reported == err.Error() {
			return nil, err // a runtime that is up and lacks the plugin will not grow one
		}
		if reported != err.Error() {
			reported = err.Error()
			logger.Info("Waiting for the container runtime", "endpoint", endpoint, "reason", reported)
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(wait):
		}
	}
}

// Normalize gives a bare socket path the scheme that the CRI client wants.
func Normalize(endpoint string) string {
	if strings.HasPrefix(endpoint, "/") {
		return "unix://" + endpoint
	}
	return endpoint
}

// SocketPath is the file system path of a unix endpoint.
func SocketPath(endpoint string) string {
	return strings.TrimPrefix(endpoint, "unix://")
}

func connectOnce(ctx context.Context, endpoint string) (*Connection, error) {
	if err := checkSocket(endpoint); err != nil {
		return nil, err
	}
	rt, err := criclient.NewRemoteRuntimeService(ctx, endpoint, callTimeout, nil, false)
	if err != nil {
		return nil, explain(endpoint, err)
	}
	img, err := criclient.NewRemoteImageService(ctx, endpoint, callTimeout, nil, false)
	if err != nil {
		_ = rt.Close(ctx)
		return nil, explain(endpoint, err)
	}
	v, err := rt.Version(ctx, string(criclient.CRIVersionV1))
	if err != nil {
		_ = rt.Close(ctx)
		_ = img.Close(ctx)
		return nil, explain(endpoint, err)
	}
	return &Connection{Runtime: countedRuntime{Verified(rt)}, Images: countedImages{img}, Endpoint: endpoint, Name: v.GetRuntimeName(), Version: v.GetRuntimeVersion()}, nil
}

// Close ends the connection. The runtime and its containers go on.
func (c *Connection) Close(ctx context.Context) error {
	return errors.Join(c.Runtime.Close(ctx), c.Images.Close(ctx))
}

// checkSocket tells the plain reasons apart before gRPC hides them.
func checkSocket(endpoint string) error {
	path := SocketPath(endpoint)
	if !strings.HasPrefix(path, "/") {
		return fmt.Errorf("%w: endpoint %q is not a unix socket; use unix:///path/to/containerd.sock", ErrNoSocket, endpoint)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		return conn.Close()
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w at %s: start containerd, or name another runtime with --runtime-endpoint", ErrNoSocket, path)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w %s: run the agent as root", ErrPermission, path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w on %s: the runtime has stopped or is starting; see its log", ErrNotListening, path)
	}
	return fmt.Errorf("container runtime socket %s: %w", path, err)
}

func explain(endpoint string, err error) error {
	path := SocketPath(endpoint)
	if status.Code(rootCause(err)) == codes.Unimplemented || strings.Contains(err.Error(), "unknown service runtime.v1") {
		return fmt.Errorf("%w on %s: remove \"cri\" from disabled_plugins in its config.toml and restart it (%w)", ErrNoCRI, path, err)
	}
	return fmt.Errorf("container runtime on %s: %w", path, err)
}

// rootCause finds the gRPC status inside an error chain.
func rootCause(err error) error {
	var s interface{ GRPCStatus() *status.Status }
	if errors.As(err, &s) {
		return s.GRPCStatus().Err()
	}
	return err
}

// IsNotFound tells that the runtime does not know the sandbox, container or image.
func IsNotFound(err error) bool { return status.Code(rootCause(err)) == codes.NotFound }

// loading is what containerd's CRI plugin answers to everything while it reads what an
// earlier containerd has left.
const loading = "server is not initialized yet"

// IsUnavailable tells that the runtime did not answer at all, so that nothing is
// known about whether the call took effect.
func IsUnavailable(err error) bool {
	if err == nil {
		return false
	}
	switch cause := rootCause(err); status.Code(cause) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return true
	case codes.Unknown:
		if strings.Contains(cause.Error(), loading) {
			return true
		}
	}
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// IsUnimplemented tells that the runtime does not have the call at all.
func IsUnimplemented(err error) bool { return status.Code(rootCause(err)) == codes.Unimplemented }

// Quiet is ctx for calls to the runtime whose errors the caller reports itself: the
// upstream client would log each of them as well.
func Quiet(ctx context.Context) context.Context {
	return klog.NewContext(ctx, logr.Discard())
}
