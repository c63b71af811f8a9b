package pods

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/everynode/everynode/internal/agent/cri"
)

// spoilt is a runtime whose answers are spoilt while on is set.
type spoilt struct {
	internalapi.RuntimeService
	on atomic.Bool

	sandboxID, containerID func(string) string
	sandbox                func(*runtimeapi.PodSandbox)
	sandboxStatus          func(*runtimeapi.PodSandboxStatusResponse)
	container              func(*runtimeapi.Container)
	containerStatus        func(*runtimeapi.ContainerStatusResponse)
}

func spoil[T any](s *spoilt, err error, how func(T), answers ...T) {
	if err != nil || how == nil || !s.on.Load() {
		return
	}
	for _, a := range answers {
		how(a)
	}
}

func (s *spoilt) RunPodSandbox(ctx context.Context, c *runtimeapi.PodSandboxConfig, handler string) (string, error) {
	id, err := s.RuntimeService.RunPodSandbox(ctx, c, handler)
	if s.sandboxID != nil && s.on.Load() {
		id = s.sandboxID(id)
	}
	return id, err
}

func (s *spoilt) CreateContainer(ctx context.Context, sandbox string, c *runtimeapi.ContainerConfig, p *runtimeapi.PodSandboxConfig) (string, error) {
	id, err := s.RuntimeService.CreateContainer(ctx, sandbox, c, p)
	if s.containerID != nil && s.on.Load() {
		id = s.containerID(id)
	}
	return id, err
}

func (s *spoilt) ListPodSandbox(ctx context.Context, f *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error) {
	list, err := s.RuntimeService.ListPodSandbox(ctx, f)
	spoil(s, err, s.sandbox, list...)
	return list, err
}

func (s *spoilt) PodSandboxStatus(ctx context.Context, id string, verbose bool) (*runtimeapi.PodSandboxStatusResponse, error) {
	r, err := s.RuntimeService.PodSandboxStatus(ctx, id, verbose)
	spoil(s, err, s.sandboxStatus, r)
	return r, err
}

func (s *spoilt) ListContainers(ctx context.Context, f *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	list, err := s.RuntimeService.ListContainers(ctx, f)
	spoil(s, err, s.container, list...)
	return list, err
}

func (s *spoilt) ContainerStatus(ctx context.Context, id string, verbose bool) (*runtimeapi.ContainerStatusResponse, error) {
	r, err := s.RuntimeService.ContainerStatus(ctx, id, verbose)
	spoil(s, err, s.containerStatus, r)
	return r, err
}

// Whatever a runtime answers, the agent does not crash, and when the answers are sound again every pod
// runs, once, and what ran before was not touched.
func TestBrokenAnswers(t *testing.T) {
	const unknown = 77
	none := func(string) string { return "" }
	for name, s := range map[string]*spoilt{
		"a sandbox without ID":          {sandboxID: none},
		"a container without ID":        {containerID: none},
		"listed sandboxes without ID":   {sandbox: func(s *runtimeapi.PodSandbox) { s.Id = "" }},
		"listed sandboxes without name": {sandbox: func(s *runtimeapi.PodSandbox) { s.Metadata = nil }},
		"sandboxes in an unknown state": {sandbox: func(s *runtimeapi.PodSandbox) { s.State = unknown }},
		"no status of sandboxes":        {sandboxStatus: func(r *runtimeapi.PodSandboxStatusResponse) { r.Status = nil }},
		"sandboxes without network":     {sandboxStatus: func(r *runtimeapi.PodSandboxStatusResponse) { r.Status.Network = nil }},
		"listed containers without ID":  {container: func(c *runtimeapi.Container) { c.Id = "" }},
		"containers without name":       {container: func(c *runtimeapi.Container) { c.Metadata = nil }},
		"containers without labels":     {container: func(c *runtimeapi.Container) { c.Labels, c.Annotations = nil, nil }},
		"containers of unknown age":     {container: func(c *runtimeapi.Container) { c.CreatedAt = -1 << 63 }},
		"containers in unknown state": {
			container:       func(c *runtimeapi.Container) { c.State = unknown },
			containerStatus: func(r *runtimeapi.ContainerStatusResponse) { r.Status.State = unknown },
		},
		"no status of containers":     {containerStatus: func(r *runtimeapi.ContainerStatusResponse) { r.Status = nil }},
		"the status of another":       {containerStatus: func(r *runtimeapi.ContainerStatusResponse) { r.Status.Id = "another" }},
		"an empty status":             {containerStatus: func(r *runtimeapi.ContainerStatusResponse) { r.Status = &runtimeapi.ContainerStatus{} }},
		"a status without image":      {containerStatus: func(r *runtimeapi.ContainerStatusResponse) { r.Status.Image, r.Status.ImageRef = nil, "" }},
		"a status with strange times": {containerStatus: func(r *runtimeapi.ContainerStatusResponse) { r.Status.StartedAt, r.Status.FinishedAt = -1<<63, 1<<63-1 }},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, n *node) {
				s.RuntimeService = n.runtime
				n.options.Runtime = cri.Verified(s)
				n.restart()
				n.create(podNamed("old", command("c", "run")))
				after(3 * time.Second)
				n.want("old", "Running c:running*")
				s.on.Store(true)
				n.create(podNamed("new", command("c", "run")))
				after(20 * time.Second)
				n.restart()
				after(20 * time.Second)
				if got := n.state("old"); !strings.HasPrefix(got, "Running") {
					t.Errorf("meanwhile the pod that ran is %s", got)
				}
				s.on.Store(false)
				after(2 * time.Minute)
				n.want("old", "Running c:running*")
				n.want("new", "Running c:running*")
				running := map[string]int{}
				list, _ := n.runtime.ListContainers(t.Context(), nil)
				for _, c := range list {
					if c.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
						running[c.Labels["io.kubernetes.pod.name"]]++
					}
				}
				if running["old"] != 1 || running["new"] != 1 {
					t.Errorf("running containers: %v", running)
				}
				starts := slices.DeleteFunc(n.runtime.Calls(), func(call string) bool { return call != "StartContainer c 0" })
				if len(starts) != 2 {
					t.Errorf("%d containers were started as the first of their pods", len(starts))
				}
			})
		})
	}
}

// Sandboxes that die as soon as they are made follow each other at a pace that the machine can bear.
func TestSandboxesThatDieAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		s := &spoilt{RuntimeService: n.runtime, sandbox: func(s *runtimeapi.PodSandbox) { s.State = runtimeapi.PodSandboxState_SANDBOX_NOTREADY }}
		n.options.Runtime = s
		n.restart()
		s.on.Store(true)
		n.create(podNamed("p", command("c", "run")))
		after(20 * time.Second)
		made := 0
		for _, call := range n.runtime.Calls() {
			if strings.HasPrefix(call, "RunPodSandbox ") {
				made++
			}
		}
		if made < 2 || made > 21 {
			t.Errorf("%d sandboxes in 20 s", made)
		}
		s.on.Store(false)
		after(5 * time.Minute)
		if got := n.state("p"); !strings.HasPrefix(got, "Running c:running") {
			t.Errorf("afterwards it is %s", got)
		}
	})
}
