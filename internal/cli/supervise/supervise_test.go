package supervise

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/everynode/everynode/internal/cli/containerd"
	"github.com/everynode/everynode/internal/cli/layout"
)

// The test program plays a supervisor that is killed, see TestChildrenDieWithTheSupervisor.
func TestMain(m *testing.M) {
	if file := os.Getenv("SUPERVISE_TEST_CHILD"); file != "" {
		spawn := newSpawner()
		cmd := exec.Command("sleep", "1000")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := spawn.start(cmd); err != nil {
			panic(err)
		}
		if err := os.WriteFile(file, []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
			panic(err)
		}
		select {}
	}
	os.Exit(m.Run())
}

func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in 10 s: %s", what)
		}
	}
}

func shell(script string) func() *exec.Cmd {
	return func() *exec.Cmd { return exec.Command("sh", "-c", script) }
}

func always(err error) func(context.Context, time.Time) error {
	return func(context.Context, time.Time) error { return err }
}

func TestComponentIsRestarted(t *testing.T) {
	spawn := newSpawner()
	defer spawn.close()
	log := filepath.Join(t.TempDir(), "logs", "c.log")
	c := newComponent("c", log, spawn, shell("echo hello; exec sleep 1000"), always(nil))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); c.run(ctx) }()

	await(t, "ready", func() bool { return c.snapshot().State == Ready })
	first := c.snapshot().PID
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, "ready again", func() bool { s := c.snapshot(); return s.State == Ready && s.PID != first })
	if s := c.snapshot(); s.Restarts != 1 || !s.EverReady {
		t.Errorf("status after one restart: %+v", s)
	}
	second := c.snapshot().PID
	cancel()
	<-done
	if err := syscall.Kill(second, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d is still there: %v", second, err)
	}
	if s := c.snapshot(); s.State != Stopped {
		t.Errorf("state after the end: %s", s.State)
	}
	if got := Tail(log, 5); got != "  hello\n  hello" {
		t.Errorf("log: %q", got)
	}
}

func TestComponentThatCannotLive(t *testing.T) {
	spawn := newSpawner()
	defer spawn.close()
	c := newComponent("c", filepath.Join(t.TempDir(), "c.log"), spawn, shell("exit 3"), always(errors.New("no answer")))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); c.run(ctx) }()
	await(t, "two restarts", func() bool { return c.snapshot().Restarts >= 2 })
	if s := c.snapshot(); s.EverReady {
		t.Errorf("it was never ready: %+v", s)
	}
	cancel()
	<-done
}

func TestComponentWaitsForWhatItNeeds(t *testing.T) {
	spawn := newSpawner()
	defer spawn.close()
	dir := t.TempDir()
	ready := make(chan struct{})
	first := newComponent("first", filepath.Join(dir, "1"), spawn, shell("exec sleep 1000"), func(ctx context.Context, _ time.Time) error {
		select {
		case <-ready:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	second := newComponent("second", filepath.Join(dir, "2"), spawn, shell("exec sleep 1000"), always(nil))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { first.run(ctx); done <- struct{}{} }()
	go func() { second.run(ctx, first); done <- struct{}{} }()
	await(t, "the first runs", func() bool { return first.snapshot().State == Starting })
	if s := second.snapshot().State; s != Waiting {
		t.Errorf("the second is %s before the first is ready", s)
	}
	close(ready)
	await(t, "the second is ready", func() bool { return second.snapshot().State == Ready })
	cancel()
	<-done
	<-done
}

func TestChildrenDieWithTheSupervisor(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	parent := exec.Command("/proc/self/exe")
	parent.Env = append(os.Environ(), "SUPERVISE_TEST_CHILD="+file)
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var child int
	await(t, "the child's pid", func() bool {
		text, _ := os.ReadFile(file)
		child, _ = strconv.Atoi(string(text))
		return child > 0
	})
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	await(t, "the child is gone", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child))
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
}

// A supervisor with harmless processes: status, stop with and without keep, and one at a time.
func TestSupervisorControl(t *testing.T) {
	dir := t.TempDir()
	l := layout.Layout{DataDir: filepath.Join(dir, "d"), RunDir: filepath.Join(dir, "r")}
	spec := &Spec{
		Layout: l, NodeName: "n", Tools: containerd.Tools{Containerd: "/bin/true"},
		ServerArgs: []string{"server"}, AgentArgs: []string{"agent"},
	}
	ctx := context.Background()
	client := NewClient(l)
	if _, err := client.Status(ctx); !errors.Is(err, ErrNotRunning) {
		t.Fatalf("status before the start: %v", err)
	}
	unlock, err := lock(l)
	if err != nil {
		t.Fatal(err)
	}
	s := newSupervisor(spec)
	for i, name := range []string{Containerd, Server, Agent} {
		s.components[i] = newComponent(name, l.Log(name), s.spawn, shell("exec sleep 1000"), always(nil))
	}
	done := make(chan error, 1)
	go func() {
		err := s.run(ctx)
		s.spawn.close()
		unlock()
		done <- err
	}()
	if _, err := lock(l); !errors.Is(err, ErrRunning) {
		t.Errorf("a second lock: %v", err)
	}
	states := func() string {
		st, err := client.Status(ctx)
		if err != nil {
			return err.Error()
		}
		var all []string
		for _, c := range st.Components {
			all = append(all, c.Name+" "+string(c.State))
		}
		return strings.Join(all, ", ")
	}
	await(t, "all ready", func() bool { return states() == "containerd ready, server ready, agent ready" })
	if err := client.Stop(ctx, Containerd); err != nil {
		t.Fatal(err)
	}
	if got := states(); got != "containerd ready, server stopped, agent stopped" {
		t.Errorf("after a stop that keeps containerd: %s", got)
	}
	if err := client.Stop(ctx, ""); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil && !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("the supervisor ended with %v", err)
	}
	if _, err := client.Status(ctx); !errors.Is(err, ErrNotRunning) {
		t.Errorf("status after the stop: %v", err)
	}
}

func TestDifference(t *testing.T) {
	base := Spec{Layout: layout.Layout{DataDir: "/d", RunDir: "/r"}, ServerArgs: []string{"server"}, AgentArgs: []string{"agent"}, BuildID: "1"}
	for name, c := range map[string]struct {
		change func(*Spec)
		want   string
	}{
		"none":      {func(*Spec) {}, ""},
		"flags":     {func(s *Spec) { s.AgentArgs = []string{"agent", "--node-ip", "192.0.2.1"} }, "other flags"},
		"data":      {func(s *Spec) { s.Layout.DataDir = "/e" }, "--data-dir /d, not /e"},
		"new build": {func(s *Spec) { s.BuildID = "2" }, "another build"},
		"moved":     {func(s *Spec) { s.Tools.Runc = "/usr/local/bin/runc" }, "have moved"},
	} {
		t.Run(name, func(t *testing.T) {
			want := base
			c.change(&want)
			got := base.Difference(&want)
			if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if got, want := base.UpgradesTo(&want), name == "new build"; got != want {
				t.Errorf("upgrade: %v, want %v", got, want)
			}
		})
	}
}

func TestBuildID(t *testing.T) {
	id, err := BuildID()
	if err != nil || strings.Count(id, "/") != 3 {
		t.Errorf("got %q, %v; want a Go build id of four parts", id, err)
	}
}

func TestRotate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	out, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	for _, step := range []struct{ write, keeps, moves string }{
		{"12345", "12345", ""},
		{"67890", "", "1234567890"},
		{"ab", "ab", "1234567890"},
	} {
		fmt.Fprint(out, step.write)
		if err := rotate(out, 8); err != nil {
			t.Fatal(err)
		}
		kept, _ := os.ReadFile(path)
		moved, _ := os.ReadFile(path + ".1")
		if string(kept) != step.keeps || string(moved) != step.moves {
			t.Errorf("after %q: kept %q, moved %q", step.write, kept, moved)
		}
	}
}
