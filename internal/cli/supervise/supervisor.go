package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/cli/containerd"
	"github.com/everynode/everynode/internal/cli/layout"
)

// The components, by the names that status, logs and messages use.
const (
	Containerd = "containerd"
	Server     = "server"
	Agent      = "agent"
)

// Status is what the supervisor answers.
type Status struct {
	PID        int               `json:"pid"`
	Spec       Spec              `json:"spec"`
	Components []ComponentStatus `json:"components"`
}

// ErrRunning means that another supervisor has the data or the machine.
var ErrRunning = errors.New("everynode already runs on this machine")

// Run is the supervisor: it blocks until ctx ends or it is told to stop, and then stops its
// processes, the agent first. Containers go on running.
func Run(ctx context.Context, spec *Spec) error {
	if err := spec.Validate(); err != nil {
		return err
	}
	unlock, err := lock(spec.Layout)
	if err != nil {
		return err
	}
	defer unlock()
	if err := containerd.ShareMounts(); err != nil {
		klog.ErrorS(err, "Preparing mounts") // pods without mountPropagation run all the same
	}
	s := newSupervisor(spec)
	defer s.spawn.close()
	return s.run(ctx)
}

// supervisor holds the processes. Each has its own context, so that `down` can stop the agent and
// the server and keep containerd for the removal of the pods.
type supervisor struct {
	spec       *Spec
	spawn      *spawner
	components []*component // in start order
	cancel     map[*component]context.CancelFunc
	done       map[*component]chan struct{}
	stopAll    context.CancelFunc
	stopping   sync.Mutex
}

func newSupervisor(spec *Spec) *supervisor {
	s := &supervisor{spec: spec, spawn: newSpawner(), cancel: map[*component]context.CancelFunc{}, done: map[*component]chan struct{}{}}
	self := func(args []string) func() *exec.Cmd {
		return func() *exec.Cmd {
			// /proc/self/exe is this very program, also after the file was replaced by a new build.
			cmd := exec.Command("/proc/self/exe", args...)
			cmd.Args[0] = "everynode"
			cmd.Dir = "/"
			return cmd
		}
	}
	probe := &clusterProbe{kubeconfig: spec.Layout.AdminKubeconfig(), node: spec.NodeName}
	s.components = []*component{
		newComponent(Containerd, spec.Layout.Log(Containerd), s.spawn,
			func() *exec.Cmd { return containerd.Command(spec.Tools, spec.Layout) },
			func(ctx context.Context, _ time.Time) error { return containerd.Ready(ctx, spec.Layout) }),
		newComponent(Server, spec.Layout.Log(Server), s.spawn, self(spec.ServerArgs), probe.serverReady),
		newComponent(Agent, spec.Layout.Log(Agent), s.spawn, self(spec.AgentArgs), probe.nodeReady),
	}
	return s
}

func (s *supervisor) run(ctx context.Context) error {
	ctx, s.stopAll = context.WithCancel(ctx)
	defer s.stopAll()
	config, err := containerd.Detect(s.spec.Layout, s.spec.Tools)
	if err != nil {
		return err
	}
	config.Debug = s.spec.Debug
	if err := config.Write(); err != nil {
		return err
	}
	listener, err := listen(s.spec.Layout.SupervisorSocket())
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.spec.Layout.SupervisorPID(), []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		return fmt.Errorf("supervisor: %w", err)
	}
	defer func() { _ = os.Remove(s.spec.Layout.SupervisorPID()) }()

	runtime, server, agent := s.components[0], s.components[1], s.components[2]
	s.launch(runtime)
	s.launch(server)
	s.launch(agent, runtime, server)
	web := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = web.Serve(listener) }() // ends with Close
	<-ctx.Done()
	s.stopExcept("")
	// The answer to the one who asked for the stop still has to get out.
	shutdownCtx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return web.Shutdown(shutdownCtx)
}

func (s *supervisor) launch(c *component, after ...*component) {
	ctx, cancel := context.WithCancel(context.Background()) // ended by stopExcept, in order
	done := make(chan struct{})
	s.cancel[c], s.done[c] = cancel, done
	go func() { defer close(done); c.run(ctx, after...) }()
}

// stopExcept stops the components in reverse order, but for one that is kept. Each wait is
// bounded by stopGrace.
func (s *supervisor) stopExcept(keep string) {
	s.stopping.Lock()
	defer s.stopping.Unlock()
	for i := len(s.components) - 1; i >= 0; i-- {
		if c := s.components[i]; c.name != keep {
			s.cancel[c]()
			<-s.done[c]
		}
	}
}

func (s *supervisor) status() Status {
	st := Status{PID: os.Getpid(), Spec: *s.spec}
	for _, c := range s.components {
		st.Components = append(st.Components, c.snapshot())
	}
	return st
}

// handler serves GET /status and POST /stop[?keep=containerd].
func (s *supervisor) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s.status()) // the asker is gone if this fails
	})
	mux.HandleFunc("POST /stop", func(w http.ResponseWriter, r *http.Request) {
		keep := r.URL.Query().Get("keep")
		s.stopExcept(keep)
		w.WriteHeader(http.StatusNoContent)
		if keep == "" {
			s.stopAll()
		}
	})
	return mux
}

// listen takes over the socket: the lock is held, so whoever left it there is gone.
func listen(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("supervisor: %w", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("supervisor: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, fmt.Errorf("supervisor: %w", err)
	}
	return listener, nil
}

// lock takes every lock of the layout, and returns ErrRunning when one is held.
func lock(l layout.Layout) (unlock func(), err error) {
	var files []*os.File
	unlock = func() {
		for _, f := range files {
			_ = f.Close() // which unlocks
		}
	}
	for _, dir := range []string{l.DataDir, l.RunDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("supervisor: %w", err)
		}
	}
	for _, path := range l.SupervisorLocks() {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			unlock()
			return nil, fmt.Errorf("supervisor: %w", err)
		}
		files = append(files, f)
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			unlock()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("%w (%s is locked)", ErrRunning, path)
			}
			return nil, fmt.Errorf("supervisor: locking %s: %w", path, err)
		}
	}
	return unlock, nil
}
