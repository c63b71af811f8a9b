package teardown

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/everynode/everynode/internal/cli/containerd"
	"github.com/everynode/everynode/internal/cli/layout"
)

const (
	// graceLimit bounds how long a container may take to end by itself, whatever its pod allows.
	graceLimit = 10 * time.Second
	// graceAnnotation is what the node's agent writes on a container: seconds, as the kubelet does.
	graceAnnotation = "io.kubernetes.pod.terminationGracePeriod"
	atOnce          = 8
	runtimeStart    = 20 * time.Second
)

// Pods stops and removes all pods of the layout's runtime, each container within its grace period
// of at most ten seconds. It returns how many pods there were. Without a trace of a running pod it
// does nothing, so it starts no runtime where none is needed.
func Pods(ctx context.Context, l layout.Layout) (int, error) {
	runtime, release, err := openRuntime(ctx, l)
	if err != nil || runtime == nil {
		return 0, err
	}
	defer release()
	return removePods(ctx, l, runtime)
}

// PodsOf stops and removes all pods of the runtime at an endpoint, which somebody else runs. A
// runtime that does not answer is an error.
func PodsOf(ctx context.Context, l layout.Layout, endpoint string) (int, error) {
	runtime, err := containerd.ConnectTo(ctx, endpoint)
	if err != nil {
		return 0, fmt.Errorf("the container runtime at %s: %w; its pods were not removed", endpoint, err)
	}
	defer func() { _ = runtime.Close(ctx) }()
	return removePods(ctx, l, runtime)
}

func removePods(ctx context.Context, l layout.Layout, runtime internalapi.RuntimeService) (int, error) {
	sandboxes, err := runtime.ListPodSandbox(ctx, nil)
	if err != nil {
		return 0, fmt.Errorf("listing the pods of the runtime: %w", err)
	}
	if err := recordLogs(l, sandboxes); err != nil {
		return 0, err
	}
	containers, err := runtime.ListContainers(ctx, nil)
	if err != nil {
		return 0, fmt.Errorf("listing the containers of the runtime: %w", err)
	}
	stops := eachOf(containers, func(c *runtimeapi.Container) error {
		if c.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
			return nil
		}
		return runtime.StopContainer(ctx, c.Id, grace(c.Annotations))
	})
	removals := eachOf(sandboxes, func(s *runtimeapi.PodSandbox) error {
		name := s.Metadata.GetNamespace() + "/" + s.Metadata.GetName()
		if err := runtime.StopPodSandbox(ctx, s.Id); err != nil {
			return fmt.Errorf("stopping pod %s: %w", name, err)
		}
		if err := runtime.RemovePodSandbox(ctx, s.Id); err != nil {
			return fmt.Errorf("removing pod %s: %w", name, err)
		}
		return nil
	})
	if removals != nil {
		return len(sandboxes), errors.Join(stops, removals)
	}
	return len(sandboxes), nil // a container that would not stop was removed all the same
}

func grace(annotations map[string]string) int64 {
	limit := int64(graceLimit / time.Second)
	if seconds, err := strconv.ParseInt(annotations[graceAnnotation], 10, 64); err == nil && seconds >= 0 {
		return min(seconds, limit)
	}
	return limit
}

// openRuntime connects to the runtime that runs, or starts one for this job. It returns nil when
// nothing runs in the state directory that would need it.
func openRuntime(ctx context.Context, l layout.Layout) (internalapi.RuntimeService, func(), error) {
	if containerd.Ready(ctx, l) == nil {
		runtime, err := containerd.Connect(ctx, l)
		if err != nil {
			return nil, nil, err
		}
		return runtime, func() { _ = runtime.Close(ctx) }, nil
	}
	if !hasTasks(l) {
		return nil, nil, nil
	}
	stop, err := startRuntime(l)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, runtimeStart)
	defer cancel()
	runtime, err := containerd.Connect(ctx, l)
	if err != nil {
		stop()
		return nil, nil, err
	}
	return runtime, func() { _ = runtime.Close(context.WithoutCancel(ctx)); stop() }, nil
}

// hasTasks tells whether containerd's state directory holds anything that ran.
func hasTasks(l layout.Layout) bool {
	tasks, err := filepath.Glob(filepath.Join(l.ContainerdState(), "io.containerd.runtime.v2.task", "*", "*"))
	return err == nil && len(tasks) > 0
}

func startRuntime(l layout.Layout) (stop func(), err error) {
	tools, err := containerd.FindTools()
	if err != nil {
		return nil, err
	}
	config, err := containerd.Detect(l, tools)
	if err != nil {
		return nil, err
	}
	if err := config.Write(); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(l.Log("containerd"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("containerd's log: %w", err)
	}
	cmd := containerd.Command(tools, l)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("starting containerd to remove the pods: %w", err), log.Close())
	}
	return func() { endProcess(cmd); _ = log.Close() }, nil
}

func endProcess(cmd *exec.Cmd) {
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		_ = cmd.Process.Kill()
		<-ended
	}
}

// recordLogs writes down whose logs these are: after the pods are gone, only this file tells.
func recordLogs(l layout.Layout, sandboxes []*runtimeapi.PodSandbox) error {
	known, err := recordedLogs(l)
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, s := range sandboxes {
		dir := fmt.Sprintf("%s_%s_%s", s.Metadata.GetNamespace(), s.Metadata.GetName(), s.Metadata.GetUid())
		if !known[dir] {
			known[dir] = true
			fmt.Fprintln(&b, dir)
		}
	}
	f, err := os.OpenFile(l.PodLogRecord(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("record of pod logs: %w", err)
	}
	_, err = f.WriteString(b.String())
	return errors.Join(err, f.Close())
}

func recordedLogs(l layout.Layout) (map[string]bool, error) {
	text, err := os.ReadFile(l.PodLogRecord())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("record of pod logs: %w", err)
	}
	dirs := map[string]bool{}
	for _, line := range strings.Split(string(text), "\n") {
		// A name with a slash would lead out of the log directory.
		if line != "" && !strings.ContainsRune(line, '/') && line != "." && line != ".." {
			dirs[line] = true
		}
	}
	return dirs, nil
}

// eachOf calls do for every item, a few at once, and joins the errors.
func eachOf[T any](items []T, do func(T) error) error {
	errs := make([]error, len(items))
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i, item := range items {
		slots <- struct{}{}
		wg.Add(1)
		go func() {
			defer func() { <-slots; wg.Done() }()
			errs[i] = do(item)
		}()
	}
	wg.Wait()
	return errors.Join(errs...)
}
