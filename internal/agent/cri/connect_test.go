package cri

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestConnectSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale.sock")
	l, err := net.Listen("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		endpoint string
		want     error
		hint     string
	}{
		{filepath.Join(dir, "none.sock"), ErrNoSocket, "--runtime-endpoint"},
		{"tcp://127.0.0.1:1", ErrNoSocket, "unix://"},
		{stale, ErrNotListening, "see its log"},
		{serve(t, nil), ErrNoCRI, "disabled_plugins"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_, err := Connect(ctx, c.endpoint)
		cancel()
		if !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.hint) {
			t.Errorf("%s: %v; want %v with a hint at %q", c.endpoint, err, c.want, c.hint)
		}
	}
}

func TestConnectWaitsForTheRuntime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "late.sock")
	began := time.AfterFunc(100*time.Millisecond, func() { serveOn(t, path, versions{}) })
	defer began.Stop()
	c, err := Connect(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if c.Name != "test" || c.Version != "9" || c.Endpoint != "unix://"+path {
		t.Errorf("connection %+v", c)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestErrorsAreToldApart(t *testing.T) {
	gone := fmt.Errorf("stop: %w", status.Error(codes.NotFound, "no such container"))
	away := fmt.Errorf("stop: %w", status.Error(codes.Unavailable, "connection refused"))
	loading := fmt.Errorf("stop: %w", status.Error(codes.Unknown, "server is not initialized yet"))
	bad := fmt.Errorf("stop: %w", status.Error(codes.Unknown, "broken"))
	for _, c := range []struct {
		err                   error
		notFound, unavailable bool
	}{{gone, true, false}, {away, false, true}, {loading, false, true}, {bad, false, false}, {nil, false, false}, {context.DeadlineExceeded, false, true}} {
		if IsNotFound(c.err) != c.notFound || IsUnavailable(c.err) != c.unavailable {
			t.Errorf("%v: not found %v, unavailable %v", c.err, IsNotFound(c.err), IsUnavailable(c.err))
		}
	}
}

type versions struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	runtimeapi.UnimplementedImageServiceServer
}

func (versions) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeName: "test", RuntimeVersion: "9", RuntimeApiVersion: "v1"}, nil
}

func (versions) ImageFsInfo(context.Context, *runtimeapi.ImageFsInfoRequest) (*runtimeapi.ImageFsInfoResponse, error) {
	return &runtimeapi.ImageFsInfoResponse{}, nil
}

// serve answers gRPC on a socket of its own; nil: without the CRI.
func serve(t *testing.T, cri *versions) string {
	path := filepath.Join(t.TempDir(), "cri.sock")
	if cri != nil {
		serveOn(t, path, *cri)
		return path
	}
	listen(t, path, grpc.NewServer())
	return path
}

func serveOn(t *testing.T, path string, cri versions) {
	s := grpc.NewServer()
	runtimeapi.RegisterRuntimeServiceServer(s, cri)
	runtimeapi.RegisterImageServiceServer(s, cri)
	listen(t, path, s)
}

func listen(t *testing.T, path string, s *grpc.Server) {
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Error(err)
		return
	}
	t.Cleanup(s.Stop)
	go func() { _ = s.Serve(l) }()
}
