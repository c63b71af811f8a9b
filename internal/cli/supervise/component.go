package supervise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"k8s.io/klog/v2"
)

// State is where a component is in its life.
type State string

// The states of a component; see the drawing in the package comment.
const (
	Waiting    State = "waiting"    // for the components that it needs
	Starting   State = "starting"   // the process runs and does not answer yet
	Ready      State = "ready"      // it answers
	Restarting State = "restarting" // it ended and is started again after a delay
	Stopped    State = "stopped"
)

// ComponentStatus is what the supervisor tells about one process.
type ComponentStatus struct {
	Name      string    `json:"name"`
	State     State     `json:"state"`
	PID       int       `json:"pid,omitempty"`
	Since     time.Time `json:"since"`
	Restarts  int       `json:"restarts"`
	EverReady bool      `json:"everReady"`
	LastError string    `json:"lastError,omitempty"`
	Log       string    `json:"log"`
}

// Delays between the end of a process and its next start. The first is short, because what is
// down meanwhile is the whole node; it grows for a process that cannot live, and a process that
// has lived for a while begins anew.
const (
	firstDelay  = 100 * time.Millisecond
	longestStay = 15 * time.Second
	stableAfter = 30 * time.Second
	stopGrace   = 8 * time.Second // the server and the agent stop within 5 s
	readyEvery  = 50 * time.Millisecond
	logLimit    = 16 << 20
	logCheck    = time.Minute
)

// component runs one process again and again.
type component struct {
	name    string
	command func() *exec.Cmd
	ready   func(ctx context.Context, started time.Time) error
	log     string
	spawn   *spawner

	readyOnce sync.Once
	readyCh   chan struct{} // closed at the first readiness

	mu     sync.Mutex
	status ComponentStatus
}

func newComponent(name, log string, spawn *spawner, command func() *exec.Cmd, ready func(context.Context, time.Time) error) *component {
	return &component{
		name: name, log: log, spawn: spawn, command: command, ready: ready, readyCh: make(chan struct{}),
		status: ComponentStatus{Name: name, State: Waiting, Since: time.Now(), Log: log},
	}
}

// run keeps the process up until ctx ends, then stops it. It waits first for what it needs.
func (c *component) run(ctx context.Context, after ...*component) {
	defer c.set(func(s *ComponentStatus) { s.State, s.PID = Stopped, 0 })
	for _, need := range after {
		select {
		case <-need.readyCh:
		case <-ctx.Done():
			return
		}
	}
	delay := firstDelay
	for ctx.Err() == nil {
		started := time.Now()
		err := c.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(started) > stableAfter {
			delay = firstDelay
		}
		klog.InfoS("Process ended", "component", c.name, "err", err, "restartIn", delay)
		c.set(func(s *ComponentStatus) {
			s.State, s.PID, s.LastError = Restarting, 0, err.Error()
			s.Restarts++
		})
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
		delay = min(2*delay, longestStay)
	}
}

// once runs the process to its end. The error is never nil: no component ends by itself.
func (c *component) once(ctx context.Context) error {
	out, err := openLog(c.log)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	cmd := c.command()
	cmd.Stdout, cmd.Stderr = out, out
	// A new session keeps the terminal's signals away; SIGKILL comes when the supervisor dies.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	started := time.Now()
	if err := c.spawn.start(cmd); err != nil {
		return fmt.Errorf("cannot start: %w", err)
	}
	klog.InfoS("Process started", "component", c.name, "pid", cmd.Process.Pid)
	c.set(func(s *ComponentStatus) { s.State, s.PID = Starting, cmd.Process.Pid })

	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	watchCtx, stopWatching := context.WithCancel(ctx)
	watching := make(chan struct{})
	go func() { defer close(watching); c.watchReady(watchCtx, started) }()
	go limitLog(watchCtx, out)
	defer func() { stopWatching(); <-watching }()

	select {
	case err = <-ended:
	case <-ctx.Done():
		err = stop(cmd.Process, ended)
	}
	if err == nil {
		err = errors.New("ended with status 0")
	}
	return err
}

// watchReady polls until the process answers, and returns.
func (c *component) watchReady(ctx context.Context, started time.Time) {
	tick := time.NewTicker(readyEvery)
	defer tick.Stop()
	for {
		err := c.ready(ctx, started)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			c.set(func(s *ComponentStatus) { s.State, s.EverReady, s.LastError = Ready, true, "" })
			c.readyOnce.Do(func() { close(c.readyCh) })
			klog.InfoS("Process ready", "component", c.name, "after", time.Since(started).Round(time.Millisecond))
			return
		}
		c.set(func(s *ComponentStatus) { s.LastError = err.Error() })
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (c *component) set(change func(*ComponentStatus)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.status.State
	change(&c.status)
	if c.status.State != before {
		c.status.Since = time.Now()
	}
}

func (c *component) snapshot() ComponentStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

// stop ends a process kindly, then for certain.
func stop(p *os.Process, ended <-chan error) error {
	_ = p.Signal(syscall.SIGTERM) // it may have ended meanwhile
	select {
	case err := <-ended:
		return err
	case <-time.After(stopGrace):
	}
	_ = p.Kill()
	return <-ended
}

// openLog opens a log for appending: the process writes to the file itself, so that nothing it
// says is lost when the supervisor is gone.
func openLog(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	out, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	return out, nil
}

// limitLog keeps a log from filling the disk: a copy of the last part goes to PATH.1.
func limitLog(ctx context.Context, out *os.File) {
	tick := time.NewTicker(logCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := rotate(out, logLimit); err != nil {
			klog.ErrorS(err, "Rotating a log", "file", out.Name())
		}
	}
}

// rotate moves the content away when it has grown past limit. The writer has the file open for
// appending, so it goes on at the new end.
func rotate(out *os.File, limit int64) error {
	info, err := out.Stat()
	if err != nil || info.Size() < limit {
		return err
	}
	text, err := os.ReadFile(out.Name())
	if err != nil {
		return err
	}
	if err := os.WriteFile(out.Name()+".1", text, 0o600); err != nil {
		return err
	}
	return out.Truncate(0)
}
