// Package fake is a container runtime in memory, for tests of what drives one. It
// keeps the CRI's rules that matter to a node agent: names are reserved, states only move
// forward, a stopped sandbox stops its containers, and a runtime that is down answers
// codes.Unavailable. Its clock is time.Now, so that tests run it in testing/synctest.
package fake

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	utilexec "k8s.io/utils/exec"
)

// Runtime implements internalapi.RuntimeService and, by Images, the image service.
// What a container does follows from its command:
//
//	run                 runs until it is stopped, and then exits with 0
//	deaf                runs and does not heed the stop signal
//	exit CODE [AFTER]   exits with a code, after a duration such as 2s
type Runtime struct {
	internalapi.RuntimeService // calls that no test needs panic

	// Delays of the calls that take time in a real runtime.
	SandboxTime, CreateTime, StartTime time.Duration
	// Info is what the runtime says of its own configuration.
	Info map[string]string
	// Run answers ExecSync. Nil: every command succeeds.
	Run func(id string, cmd []string) (output string, exitCode int)

	mu         sync.Mutex
	down       bool
	next       int
	sandboxes  map[string]*sandbox
	containers map[string]*container
	fail       map[string][]error
	calls      []string
}

type sandbox struct {
	runtimeapi.PodSandboxStatus
	config *runtimeapi.PodSandboxConfig
	order  int
}

type container struct {
	runtimeapi.ContainerStatus
	config    *runtimeapi.ContainerConfig
	sandboxID string
	order     int
	stopped   chan struct{}
}

var _ internalapi.RuntimeService = &Runtime{}

// New returns an empty runtime in which everything is instant.
func New() *Runtime {
	return &Runtime{sandboxes: map[string]*sandbox{}, containers: map[string]*container{}, fail: map[string][]error{}}
}

// SetDown makes every call fail, or work again; containers go on.
func (r *Runtime) SetDown(down bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = down
}

// FailNext makes the next call of that method fail with err, before it does anything.
func (r *Runtime) FailNext(method string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail[method] = append(r.fail[method], err)
}

// LoseAnswer makes the next StartContainer take effect and answer as if the runtime had been
// killed meanwhile.
func (r *Runtime) LoseAnswer() {
	r.FailNext("answer", status.Error(codes.Unavailable, "error reading from server: EOF"))
}

// Calls are the calls so far that change something, such as "StartContainer web 0".
func (r *Runtime) Calls() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}

// Exit ends the newest container of that name.
func (r *Runtime) Exit(name string, code int32, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var last *container
	for _, c := range r.containers {
		if c.Metadata.Name == name && (last == nil || c.order > last.order) {
			last = c
		}
	}
	last.exit(code, reason)
}

// KillSandboxes is a reboot: every sandbox and container ends.
func (r *Runtime) KillSandboxes() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.sandboxes {
		s.State = runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	}
	for _, c := range r.containers {
		c.exit(255, "Unknown")
	}
}

// Configs are the configurations of all containers ever created and not removed.
func (r *Runtime) Configs() map[string]*runtimeapi.ContainerConfig {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]*runtimeapi.ContainerConfig{}
	for _, c := range r.containers {
		out[c.Metadata.Name+"/"+strconv.Itoa(int(c.Metadata.Attempt))] = c.config
	}
	return out
}

func (c *container) exit(code int32, reason string) {
	if c.State == runtimeapi.ContainerState_CONTAINER_EXITED {
		return
	}
	if reason == "" {
		reason = "Completed"
		if code != 0 {
			reason = "Error"
		}
	}
	c.State, c.ExitCode, c.Reason, c.FinishedAt = runtimeapi.ContainerState_CONTAINER_EXITED, code, reason, time.Now().UnixNano()
	close(c.stopped)
}

// begin is the start of every call.
func (r *Runtime) begin(ctx context.Context, method string, took time.Duration, note string) error {
	if took > 0 {
		select {
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-time.After(took):
		}
	}
	if err := ctx.Err(); err != nil {
		return status.FromContextError(err).Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down {
		return status.Error(codes.Unavailable, "connection refused")
	}
	if note != "" {
		r.calls = append(r.calls, method+" "+note)
	}
	if list := r.fail[method]; len(list) > 0 {
		r.fail[method] = list[1:]
		return list[0]
	}
	return nil
}

func notFound(kind, id string) error {
	return status.Errorf(codes.NotFound, "an error occurred when try to find %s %q: not found", kind, id)
}

// Version answers as any runtime does.
func (r *Runtime) Version(ctx context.Context, _ string) (*runtimeapi.VersionResponse, error) {
	if err := r.begin(ctx, "Version", 0, ""); err != nil {
		return nil, err
	}
	return &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeName: "fake", RuntimeVersion: "1", RuntimeApiVersion: "v1"}, nil
}

// Status is that of a runtime that is ready.
func (r *Runtime) Status(ctx context.Context, _ bool) (*runtimeapi.StatusResponse, error) {
	if err := r.begin(ctx, "Status", 0, ""); err != nil {
		return nil, err
	}
	return &runtimeapi.StatusResponse{Info: r.Info, Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: runtimeapi.RuntimeReady, Status: true}, {Type: runtimeapi.NetworkReady, Status: true},
	}}}, nil
}

// RunPodSandbox gives each pod off the host's network an address of its own.
func (r *Runtime) RunPodSandbox(ctx context.Context, config *runtimeapi.PodSandboxConfig, _ string) (string, error) {
	m := config.Metadata
	if err := r.begin(ctx, "RunPodSandbox", r.SandboxTime, fmt.Sprintf("%s %d", m.Name, m.Attempt)); err != nil {
		return "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.sandboxes {
		if s.Metadata.Uid == m.Uid && s.Metadata.Attempt == m.Attempt {
			return "", status.Errorf(codes.Unknown, "failed to reserve sandbox name: name is reserved for %q", s.Id)
		}
	}
	r.next++
	s := &sandbox{config: config, order: r.next}
	s.Id, s.Metadata, s.Labels, s.CreatedAt = fmt.Sprintf("sandbox-%d", r.next), m, config.Labels, time.Now().UnixNano()
	if config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork() == runtimeapi.NamespaceMode_POD {
		s.Network = &runtimeapi.PodSandboxNetworkStatus{Ip: fmt.Sprintf("10.0.0.%d", r.next)}
	}
	r.sandboxes[s.Id] = s
	return s.Id, nil
}

// StopPodSandbox stops the sandbox and the containers in it. One that is gone is NotFound, as
// containerd 1.6 has it, unlike a removal.
func (r *Runtime) StopPodSandbox(ctx context.Context, id string) error {
	if err := r.begin(ctx, "StopPodSandbox", 0, id); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sandboxes[id]
	if s == nil {
		return notFound("sandbox", id)
	}
	s.State = runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	for _, c := range r.containers {
		if c.sandboxID == id {
			c.exit(137, "")
		}
	}
	return nil
}

// Reboot ends everything that runs, as the machine's reboot does; the records stay.
func (r *Runtime) Reboot() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.sandboxes {
		s.State = runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	}
	for _, c := range r.containers {
		c.exit(255, "Unknown")
	}
}

// RemovePodSandbox removes the sandbox and the containers in it.
func (r *Runtime) RemovePodSandbox(ctx context.Context, id string) error {
	if err := r.begin(ctx, "RemovePodSandbox", 0, id); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.sandboxes, id)
	for cid, c := range r.containers {
		if c.sandboxID == id {
			c.exit(137, "")
			delete(r.containers, cid)
		}
	}
	return nil
}

// PodSandboxStatus tells the sandbox's address.
func (r *Runtime) PodSandboxStatus(ctx context.Context, id string, _ bool) (*runtimeapi.PodSandboxStatusResponse, error) {
	if err := r.begin(ctx, "PodSandboxStatus", 0, ""); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sandboxes[id]
	if s == nil {
		return nil, notFound("sandbox", id)
	}
	return &runtimeapi.PodSandboxStatusResponse{Status: &runtimeapi.PodSandboxStatus{
		Id: s.Id, Metadata: s.Metadata, State: s.State, CreatedAt: s.CreatedAt, Labels: s.Labels, Network: s.Network,
	}}, nil
}

// ListPodSandbox lists by labels.
func (r *Runtime) ListPodSandbox(ctx context.Context, filter *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error) {
	if err := r.begin(ctx, "ListPodSandbox", 0, ""); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*runtimeapi.PodSandbox
	for _, s := range r.sandboxes {
		if matches(filter.GetLabelSelector(), s.Labels) {
			out = append(out, &runtimeapi.PodSandbox{Id: s.Id, Metadata: s.Metadata, State: s.State, CreatedAt: s.CreatedAt, Labels: s.Labels, Annotations: s.config.GetAnnotations()})
		}
	}
	return out, nil
}

func matches(selector, labels map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return true
}

// CreateContainer reserves the container's name in its sandbox.
func (r *Runtime) CreateContainer(ctx context.Context, sandboxID string, config *runtimeapi.ContainerConfig, _ *runtimeapi.PodSandboxConfig) (string, error) {
	m := config.Metadata
	if err := r.begin(ctx, "CreateContainer", r.CreateTime, fmt.Sprintf("%s %d", m.Name, m.Attempt)); err != nil {
		return "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sandboxes[sandboxID]
	if s == nil || s.State != runtimeapi.PodSandboxState_SANDBOX_READY {
		return "", status.Errorf(codes.Unknown, "sandbox container %q is not running", sandboxID)
	}
	for _, c := range r.containers {
		if c.sandboxID == sandboxID && c.Metadata.Name == m.Name && c.Metadata.Attempt == m.Attempt {
			return "", status.Errorf(codes.Unknown, "failed to reserve container name: name is reserved for %q", c.Id)
		}
	}
	r.next++
	c := &container{config: config, sandboxID: sandboxID, order: r.next, stopped: make(chan struct{})}
	c.Id, c.Metadata, c.CreatedAt = fmt.Sprintf("container-%d", r.next), m, time.Now().UnixNano()
	c.Image, c.ImageRef = &runtimeapi.ImageSpec{Image: config.Image.UserSpecifiedImage}, config.Image.Image
	c.Labels, c.Annotations, c.Mounts = config.Labels, config.Annotations, config.Mounts
	r.containers[c.Id] = c
	return c.Id, nil
}

// StartContainer begins what the command says.
func (r *Runtime) StartContainer(ctx context.Context, id string) error {
	if err := r.startContainer(ctx, id); err != nil {
		return err
	}
	return r.begin(ctx, "answer", 0, "")
}

func (r *Runtime) startContainer(ctx context.Context, id string) error {
	r.mu.Lock()
	c := r.containers[id]
	r.mu.Unlock()
	if c == nil {
		return notFound("container", id)
	}
	if err := r.begin(ctx, "StartContainer", r.StartTime, fmt.Sprintf("%s %d", c.Metadata.Name, c.Metadata.Attempt)); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.State != runtimeapi.ContainerState_CONTAINER_CREATED {
		return status.Errorf(codes.Unknown, "container is in %s state", c.State)
	}
	c.State, c.StartedAt = runtimeapi.ContainerState_CONTAINER_RUNNING, time.Now().UnixNano()
	words := append(slices.Clone(c.config.Command), c.config.Args...)
	if len(words) == 0 || words[0] != "exit" {
		return nil
	}
	code, _ := strconv.Atoi(words[1])
	if len(words) == 2 {
		c.exit(int32(code), "")
		return nil
	}
	after, _ := time.ParseDuration(words[2])
	time.AfterFunc(after, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		c.exit(int32(code), "")
	})
	return nil
}

// StopContainer returns once the container has ended.
func (r *Runtime) StopContainer(ctx context.Context, id string, timeout int64) error {
	r.mu.Lock()
	c := r.containers[id]
	r.mu.Unlock()
	if c == nil {
		return notFound("container", id)
	}
	if err := r.begin(ctx, "StopContainer", 0, fmt.Sprintf("%s %d grace %d", c.Metadata.Name, c.Metadata.Attempt, timeout)); err != nil {
		return err
	}
	code := int32(0)
	if slices.Equal(c.config.Command, []string{"deaf"}) {
		code = 137
		select {
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-c.stopped:
		case <-time.After(time.Duration(timeout) * time.Second):
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c.exit(code, "")
	return nil
}

// RemoveContainer removes the container, ending it if it still runs. One that is gone is fine.
func (r *Runtime) RemoveContainer(ctx context.Context, id string) error {
	r.mu.Lock()
	c := r.containers[id]
	r.mu.Unlock()
	if c == nil {
		return r.begin(ctx, "RemoveContainer", 0, "")
	}
	if err := r.begin(ctx, "RemoveContainer", 0, fmt.Sprintf("%s %d", c.Metadata.Name, c.Metadata.Attempt)); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c.exit(137, "")
	delete(r.containers, id)
	return nil
}

// ListContainers lists by labels, in no order.
func (r *Runtime) ListContainers(ctx context.Context, filter *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	if err := r.begin(ctx, "ListContainers", 0, ""); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*runtimeapi.Container
	for _, c := range r.containers {
		if matches(filter.GetLabelSelector(), c.Labels) {
			out = append(out, &runtimeapi.Container{
				Id: c.Id, PodSandboxId: c.sandboxID, Metadata: c.Metadata, Image: c.Image, ImageRef: c.ImageRef,
				State: c.State, CreatedAt: c.CreatedAt, Labels: c.Labels, Annotations: c.Annotations,
			})
		}
	}
	return out, nil
}

// ContainerStatus tells all of a container.
func (r *Runtime) ContainerStatus(ctx context.Context, id string, _ bool) (*runtimeapi.ContainerStatusResponse, error) {
	if err := r.begin(ctx, "ContainerStatus", 0, ""); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil {
		return nil, notFound("container", id)
	}
	return &runtimeapi.ContainerStatusResponse{Status: &runtimeapi.ContainerStatus{
		Id: c.Id, Metadata: c.Metadata, State: c.State, CreatedAt: c.CreatedAt, StartedAt: c.StartedAt, FinishedAt: c.FinishedAt,
		ExitCode: c.ExitCode, Reason: c.Reason, Message: c.Message, Image: c.Image, ImageRef: c.ImageRef,
		Labels: c.Labels, Annotations: c.Annotations, Mounts: c.Mounts,
	}}, nil
}

// ExecSync asks Run.
func (r *Runtime) ExecSync(ctx context.Context, id string, cmd []string, _ time.Duration) (stdout, stderr []byte, err error) {
	if err := r.begin(ctx, "ExecSync", 0, ""); err != nil {
		return nil, nil, err
	}
	r.mu.Lock()
	c := r.containers[id]
	running := c != nil && c.State == runtimeapi.ContainerState_CONTAINER_RUNNING
	r.mu.Unlock()
	if !running {
		return nil, nil, status.Errorf(codes.Unknown, "container %q is not running", id)
	}
	if r.Run == nil {
		return nil, nil, nil
	}
	out, code := r.Run(id, cmd)
	if code != 0 {
		return []byte(out), nil, utilexec.CodeExitError{Err: fmt.Errorf("command exited with %d", code), Code: code}
	}
	return []byte(out), nil, nil
}

// UpdateContainerResources notes the new resources of a running container.
func (r *Runtime) UpdateContainerResources(ctx context.Context, id string, resources *runtimeapi.ContainerResources) error {
	r.mu.Lock()
	c := r.containers[id]
	r.mu.Unlock()
	if c == nil {
		return notFound("container", id)
	}
	note := fmt.Sprintf("%s %d cpu %d memory %d", c.Metadata.Name, c.Metadata.Attempt, resources.GetLinux().GetCpuShares(), resources.GetLinux().GetMemoryLimitInBytes())
	if err := r.begin(ctx, "UpdateContainerResources", 0, note); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return status.Errorf(codes.Unknown, "container is in %s state", c.State)
	}
	return nil
}
