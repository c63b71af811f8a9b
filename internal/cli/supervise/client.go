package supervise

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/everynode/everynode/internal/cli/layout"
)

// ErrNotRunning means that no supervisor answers for this layout.
var ErrNotRunning = errors.New("everynode is not running")

// Client talks to the supervisor of a layout.
type Client struct {
	layout layout.Layout
	http   *http.Client
}

// NewClient returns a client; it connects with each call.
func NewClient(l layout.Layout) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", l.SupervisorSocket())
	}
	return &Client{layout: l, http: &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// Status asks what runs. It returns ErrNotRunning when nothing does.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	body, err := c.do(ctx, http.MethodGet, "/status", http.StatusOK)
	if err != nil {
		return nil, err
	}
	st := &Status{}
	if err := json.Unmarshal(body, st); err != nil {
		return nil, fmt.Errorf("supervisor: %w", err)
	}
	return st, nil
}

// Stop stops the processes but keep (a component's name), and the supervisor itself when keep is
// empty. It returns when they have ended, which takes a bounded time.
func (c *Client) Stop(ctx context.Context, keep string) error {
	_, err := c.do(ctx, http.MethodPost, "/stop?keep="+url.QueryEscape(keep), http.StatusNoContent)
	if err != nil || keep != "" {
		return err
	}
	return c.awaitEnd(ctx)
}

// awaitEnd waits for the supervisor's locks: once they are free, another one can start.
func (c *Client) awaitEnd(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		unlock, err := lock(c.layout)
		if err == nil {
			unlock()
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the supervisor does not end: %w; its process id is in %s", err, c.layout.SupervisorPID())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (c *Client) do(ctx context.Context, method, path string, want int) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://supervisor"+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, ErrNotRunning
	}
	if err != nil {
		return nil, fmt.Errorf("supervisor: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("supervisor: %w", err)
	}
	if response.StatusCode != want {
		return nil, fmt.Errorf("supervisor: %s: %s", response.Status, bytes.TrimSpace(body))
	}
	return body, nil
}

// Start launches the supervisor as a detached process and returns when it answers. The process
// has a session of its own, so it outlives the terminal that it was started from.
func Start(ctx context.Context, spec *Spec) error {
	if err := spec.Validate(); err != nil {
		return err
	}
	if err := spec.WriteFile(); err != nil {
		return err
	}
	out, err := openLog(spec.Layout.Log("supervisor"))
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	cmd := exec.Command("/proc/self/exe", "supervise", "--data-dir", spec.Layout.DataDir, "--run-dir", spec.Layout.RunDir)
	cmd.Args[0] = "everynode"
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the supervisor: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return awaitAnswer(ctx, spec, cmd.Process.Pid, ended)
}

func awaitAnswer(ctx context.Context, spec *Spec, pid int, ended <-chan error) error {
	client := NewClient(spec.Layout)
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	for {
		if st, err := client.Status(ctx); err == nil && st.PID == pid {
			return nil
		}
		select {
		case err := <-ended:
			return fmt.Errorf("the supervisor ended at once (%w); it said:\n%s", exitError(err), Tail(spec.Layout.Log("supervisor"), 5))
		case <-ctx.Done():
			return fmt.Errorf("the supervisor (process %d) does not answer: %w; see %s", pid, context.Cause(ctx), spec.Layout.Log("supervisor"))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func exitError(err error) error {
	if err == nil {
		return errors.New("status 0")
	}
	return err
}

// Tail returns the last lines of a log, indented, for messages about a process that failed.
func Tail(path string, lines int) string {
	const window = 64 << 10
	f, err := os.Open(path)
	if err != nil {
		return "  " + err.Error()
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err == nil && info.Size() > window {
		_, _ = f.Seek(-window, io.SeekEnd) // from the start, if it fails
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return "  " + err.Error()
	}
	all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return "  " + strings.Join(all, "\n  ")
}
