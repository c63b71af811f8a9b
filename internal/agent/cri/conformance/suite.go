package conformance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	utilexec "k8s.io/utils/exec"
)

// patience bounds what has to happen by itself, such as the end of a container.
const patience = 30 * time.Second

// Subject is a runtime and what its containers understand.
type Subject struct {
	Runtime internalapi.RuntimeService
	// Image is present.
	Image string
	// Run runs until it is stopped and then exits with 0; Deaf runs and does not heed the stop
	// signal; Exit3 ends at once with code 3, in a container and in an exec.
	Run, Deaf, Exit3 []string
	// CgroupParent of the sandboxes, and the directory of their logs, as the runtime sees it.
	CgroupParent, LogDir string
}

// Test runs the suite.
func Test(t *testing.T, s Subject) {
	for _, c := range []struct {
		name string
		test func(*testing.T, *run)
	}{
		{"a sandbox from its start to its removal", sandboxLife},
		{"names are reserved for an attempt", namesAreReserved},
		{"a container from its creation to its removal", containerLife},
		{"a container tells its exit code", exitCode},
		{"a container that is deaf to the signal is killed after its grace", deafIsKilled},
		{"a sandbox that stops takes its containers along", sandboxTakesContainers},
		{"a stopped sandbox takes no container", stoppedTakesNone},
		{"a running container can be removed", removeRunning},
		{"lists are selected by labels", selectByLabels},
		{"what a container was made with is told again", metadataIsKept},
		{"exec tells output and exit code", exec},
		{"a running container takes new resources", updateResources},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.test(t, &run{Subject: s, t: t, uid: fmt.Sprintf("%x", time.Now().UnixNano())})
		})
	}
}

// run is one test of the suite.
type run struct {
	Subject
	t   *testing.T
	uid string
}

func (r *run) ctx() context.Context { return r.t.Context() }

func (r *run) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// gone checks that the runtime says NotFound.
func (r *run) gone(what string, err error) {
	r.t.Helper()
	if status.Code(err) != codes.NotFound {
		r.t.Errorf("%s that is gone: %v, want code NotFound", what, err)
	}
}

func (r *run) sandboxConfig(attempt uint32) *runtimeapi.PodSandboxConfig {
	return &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: "pod", Namespace: "conformance", Uid: r.uid, Attempt: attempt},
		Hostname:     "pod",
		LogDirectory: r.LogDir,
		Labels:       map[string]string{"conformance.uid": r.uid, "attempt": fmt.Sprint(attempt)},
		Linux:        &runtimeapi.LinuxPodSandboxConfig{CgroupParent: r.CgroupParent},
	}
}

// sandbox starts a sandbox that ends with the test.
func (r *run) sandbox() (id string) {
	r.t.Helper()
	id, err := r.Runtime.RunPodSandbox(r.ctx(), r.sandboxConfig(0), "")
	r.must(err)
	r.t.Cleanup(func() {
		ctx := context.WithoutCancel(r.ctx())
		// The test may have removed it, and then a runtime may say so.
		if err := r.Runtime.StopPodSandbox(ctx, id); err != nil && status.Code(err) != codes.NotFound {
			r.t.Errorf("cleaning up: %v", err)
		}
		if err := r.Runtime.RemovePodSandbox(ctx, id); err != nil {
			r.t.Errorf("cleaning up: %v", err)
		}
	})
	return id
}

func (r *run) containerConfig(name string, command []string) *runtimeapi.ContainerConfig {
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name},
		Image:    &runtimeapi.ImageSpec{Image: r.Image, UserSpecifiedImage: r.Image},
		Command:  command[:1], Args: command[1:],
		LogPath:     name + ".log",
		Labels:      map[string]string{"conformance.uid": r.uid, "name": name},
		Annotations: map[string]string{"hash": "abc"},
		Linux:       &runtimeapi.LinuxContainerConfig{},
	}
}

func (r *run) create(sandbox, name string, command []string) (id string) {
	r.t.Helper()
	id, err := r.Runtime.CreateContainer(r.ctx(), sandbox, r.containerConfig(name, command), r.sandboxConfig(0))
	r.must(err)
	return id
}

func (r *run) start(sandbox, name string, command []string) (id string) {
	r.t.Helper()
	id = r.create(sandbox, name, command)
	r.must(r.Runtime.StartContainer(r.ctx(), id))
	return id
}

func (r *run) status(id string) *runtimeapi.ContainerStatus {
	r.t.Helper()
	response, err := r.Runtime.ContainerStatus(r.ctx(), id, false)
	r.must(err)
	return response.Status
}

func (r *run) inState(id string, want runtimeapi.ContainerState) *runtimeapi.ContainerStatus {
	r.t.Helper()
	got := r.status(id)
	if got.State != want {
		r.t.Errorf("container is %s, want %s", got.State, want)
	}
	return got
}

// ended waits for the end of a container.
func (r *run) ended(id string) *runtimeapi.ContainerStatus {
	r.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		switch got := r.status(id); {
		case got.State == runtimeapi.ContainerState_CONTAINER_EXITED:
			return got
		case time.Now().After(deadline):
			r.t.Fatalf("the container is still %s after %s", got.State, patience)
		}
	}
}

func sandboxLife(t *testing.T, r *run) {
	id := r.sandbox()
	response, err := r.Runtime.PodSandboxStatus(r.ctx(), id, false)
	r.must(err)
	got := response.Status
	if got.State != runtimeapi.PodSandboxState_SANDBOX_READY || got.CreatedAt == 0 || got.Network.GetIp() == "" {
		t.Errorf("status: %+v", got)
	}
	if want := r.sandboxConfig(0); got.Metadata.Uid != want.Metadata.Uid || got.Metadata.Name != want.Metadata.Name || !maps.Equal(got.Labels, want.Labels) {
		t.Errorf("metadata %v and labels %v, want %v and %v", got.Metadata, got.Labels, want.Metadata, want.Labels)
	}
	r.must(r.Runtime.StopPodSandbox(r.ctx(), id))
	if response, err = r.Runtime.PodSandboxStatus(r.ctx(), id, false); err != nil || response.Status.State != runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
		t.Errorf("stopped: %+v, %v", response, err)
	}
	r.must(r.Runtime.StopPodSandbox(r.ctx(), id)) // a stop whose answer was lost is repeated
	r.must(r.Runtime.RemovePodSandbox(r.ctx(), id))
	r.must(r.Runtime.RemovePodSandbox(r.ctx(), id))
	_, err = r.Runtime.PodSandboxStatus(r.ctx(), id, false)
	r.gone("sandbox", err)
}

func namesAreReserved(t *testing.T, r *run) {
	sandbox := r.sandbox()
	if id, err := r.Runtime.RunPodSandbox(r.ctx(), r.sandboxConfig(0), ""); err == nil {
		t.Errorf("two sandboxes of one name and attempt: %s and %s", sandbox, id)
	}
	first := r.create(sandbox, "app", r.Run)
	config := r.containerConfig("app", r.Run)
	if id, err := r.Runtime.CreateContainer(r.ctx(), sandbox, config, r.sandboxConfig(0)); err == nil {
		t.Errorf("two containers of one name and attempt: %s and %s", first, id)
	}
	config.Metadata.Attempt = 1
	_, err := r.Runtime.CreateContainer(r.ctx(), sandbox, config, r.sandboxConfig(0))
	r.must(err)
	next, err := r.Runtime.RunPodSandbox(r.ctx(), r.sandboxConfig(1), "")
	r.must(err)
	r.must(r.Runtime.StopPodSandbox(r.ctx(), next))
	r.must(r.Runtime.RemovePodSandbox(r.ctx(), next))
}

func containerLife(t *testing.T, r *run) {
	id := r.create(r.sandbox(), "app", r.Run)
	if got := r.inState(id, runtimeapi.ContainerState_CONTAINER_CREATED); got.StartedAt != 0 {
		t.Errorf("created and not started, but started at %d", got.StartedAt)
	}
	r.must(r.Runtime.StartContainer(r.ctx(), id))
	if got := r.inState(id, runtimeapi.ContainerState_CONTAINER_RUNNING); got.StartedAt == 0 || got.FinishedAt != 0 {
		t.Errorf("running: started at %d, finished at %d", got.StartedAt, got.FinishedAt)
	}
	if err := r.Runtime.StartContainer(r.ctx(), id); err == nil {
		t.Error("a running container can be started")
	}
	// A program needs a moment until it heeds signals.
	r.awaitExec(id)
	r.must(r.Runtime.StopContainer(r.ctx(), id, 20))
	got := r.inState(id, runtimeapi.ContainerState_CONTAINER_EXITED)
	if got.ExitCode != 0 || got.Reason != "Completed" || got.FinishedAt < got.StartedAt {
		t.Errorf("ended with code %d, reason %q, started at %d, finished at %d", got.ExitCode, got.Reason, got.StartedAt, got.FinishedAt)
	}
	r.must(r.Runtime.StopContainer(r.ctx(), id, 20))
	r.must(r.Runtime.RemoveContainer(r.ctx(), id))
	r.must(r.Runtime.RemoveContainer(r.ctx(), id)) // a removal whose answer was lost is repeated
	_, err := r.Runtime.ContainerStatus(r.ctx(), id, false)
	r.gone("container", err)
}

// awaitExec waits until a command has run in a container.
func (r *run) awaitExec(id string) {
	r.t.Helper()
	_, _, err := r.Runtime.ExecSync(r.ctx(), id, r.Exit3, patience)
	var exit utilexec.ExitError
	if !errors.As(err, &exit) {
		r.t.Fatalf("exec: %v", err)
	}
}

func exitCode(t *testing.T, r *run) {
	if got := r.ended(r.start(r.sandbox(), "app", r.Exit3)); got.ExitCode != 3 || got.Reason != "Error" {
		t.Errorf("ended with code %d, reason %q; want 3, Error", got.ExitCode, got.Reason)
	}
}

func deafIsKilled(t *testing.T, r *run) {
	id := r.start(r.sandbox(), "app", r.Deaf)
	r.awaitExec(id)
	r.must(r.Runtime.StopContainer(r.ctx(), id, 1))
	if got := r.inState(id, runtimeapi.ContainerState_CONTAINER_EXITED); got.ExitCode != 137 {
		t.Errorf("ended with code %d, want 137", got.ExitCode)
	}
}

func sandboxTakesContainers(_ *testing.T, r *run) {
	sandbox := r.sandbox()
	id := r.start(sandbox, "app", r.Run)
	r.must(r.Runtime.StopPodSandbox(r.ctx(), sandbox))
	r.inState(id, runtimeapi.ContainerState_CONTAINER_EXITED)
	r.must(r.Runtime.RemovePodSandbox(r.ctx(), sandbox))
	_, err := r.Runtime.ContainerStatus(r.ctx(), id, false)
	r.gone("container of a removed sandbox", err)
}

func stoppedTakesNone(t *testing.T, r *run) {
	sandbox := r.sandbox()
	r.must(r.Runtime.StopPodSandbox(r.ctx(), sandbox))
	if _, err := r.Runtime.CreateContainer(r.ctx(), sandbox, r.containerConfig("app", r.Run), r.sandboxConfig(0)); err == nil {
		t.Error("a stopped sandbox takes a container")
	}
}

func removeRunning(_ *testing.T, r *run) {
	id := r.start(r.sandbox(), "app", r.Run)
	r.must(r.Runtime.RemoveContainer(r.ctx(), id))
	_, err := r.Runtime.ContainerStatus(r.ctx(), id, false)
	r.gone("container", err)
}

func selectByLabels(t *testing.T, r *run) {
	sandbox := r.sandbox()
	a, b := r.create(sandbox, "a", r.Run), r.create(sandbox, "b", r.Run)
	list := func(labels map[string]string) []string {
		t.Helper()
		labels["conformance.uid"] = r.uid
		found, err := r.Runtime.ListContainers(r.ctx(), &runtimeapi.ContainerFilter{LabelSelector: labels})
		r.must(err)
		ids := make([]string, 0, len(found))
		for _, c := range found {
			if c.PodSandboxId != sandbox {
				t.Errorf("container %s is in sandbox %s, want %s", c.Id, c.PodSandboxId, sandbox)
			}
			ids = append(ids, c.Id)
		}
		return ids
	}
	if got := list(map[string]string{"name": "b"}); !slices.Equal(got, []string{b}) {
		t.Errorf("containers named b: %v, want %s", got, b)
	}
	if got := list(map[string]string{}); len(got) != 2 || !slices.Contains(got, a) {
		t.Errorf("containers: %v, want %s and %s", got, a, b)
	}
	sandboxes, err := r.Runtime.ListPodSandbox(r.ctx(), &runtimeapi.PodSandboxFilter{LabelSelector: map[string]string{"conformance.uid": r.uid, "attempt": "0"}})
	r.must(err)
	if len(sandboxes) != 1 || sandboxes[0].Id != sandbox || sandboxes[0].State != runtimeapi.PodSandboxState_SANDBOX_READY {
		t.Errorf("sandboxes: %v, want %s", sandboxes, sandbox)
	}
}

func metadataIsKept(t *testing.T, r *run) {
	sandbox := r.sandbox()
	id := r.create(sandbox, "app", r.Run)
	want, got := r.containerConfig("app", r.Run), r.status(id)
	if !maps.Equal(got.Labels, want.Labels) || !maps.Equal(got.Annotations, want.Annotations) || got.Metadata.Name != "app" || got.ImageRef == "" {
		t.Errorf("labels %v, annotations %v, metadata %v, image %q", got.Labels, got.Annotations, got.Metadata, got.ImageRef)
	}
}

func exec(t *testing.T, r *run) {
	id := r.start(r.sandbox(), "app", r.Run)
	_, _, err := r.Runtime.ExecSync(r.ctx(), id, r.Exit3, patience)
	var exit utilexec.ExitError
	if !errors.As(err, &exit) || exit.ExitStatus() != 3 {
		t.Errorf("exec: %v, want exit status 3", err)
	}
	r.must(r.Runtime.StopContainer(r.ctx(), id, 20))
	if _, _, err := r.Runtime.ExecSync(r.ctx(), id, r.Exit3, patience); err == nil || errors.As(err, &exit) {
		t.Errorf("exec in a container that has ended: %v, want an error that is no exit status", err)
	}
}

func updateResources(_ *testing.T, r *run) {
	id := r.start(r.sandbox(), "app", r.Run)
	r.must(r.Runtime.UpdateContainerResources(r.ctx(), id, &runtimeapi.ContainerResources{Linux: &runtimeapi.LinuxContainerResources{CpuShares: 512}}))
}
