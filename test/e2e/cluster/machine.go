package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Machine is a set of namespaces with processes in it.
type Machine struct {
	Name string
	// Dir is where the machine's /var/lib (varlib) and /var/log (varlog) are on the real machine.
	Dir string
	// Clock is how far ahead the wall clock of the programs is that Start starts.
	Clock time.Duration

	t      testing.TB
	init   *exec.Cmd
	thread *thread
	starts *starter

	mu        sync.Mutex
	processes []*Process
}

// starter starts the inits of all machines, from one thread that outlives every test: Pdeathsig
// of a process is about the thread that started it.
type starter struct{ calls chan func() }

var newStarter = sync.OnceValue(func() *starter {
	s := &starter{calls: make(chan func())}
	go func() {
		runtime.LockOSThread()
		for call := range s.calls {
			call()
		}
	}()
	return s
})

func (s *starter) start(cmd *exec.Cmd) error {
	result := make(chan error, 1)
	s.calls <- func() { result <- cmd.Start() }
	return <-result
}

// NewMachine starts a machine without a network but loopback. It ends with the test.
func NewMachine(t testing.TB, name string) *Machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("end-to-end tests start containers and must run as root: sudo make test")
	}
	id := fmt.Sprintf("%s%d-%s", prefix, os.Getpid(), name)
	dir, err := os.MkdirTemp("", "everynode-"+id+"-")
	if err != nil {
		t.Fatal(err)
	}
	m := &Machine{Name: id, Dir: dir, t: t, starts: newStarter()}
	t.Cleanup(m.close)
	if err := m.boot(); err != nil {
		t.Fatalf("machine %s: %v", name, err)
	}
	return m
}

func (m *Machine) boot() error {
	ready, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = ready.Close() }()
	var stderr bytes.Buffer
	m.init = exec.Command("/proc/self/exe")
	m.init.Env = append(os.Environ(), envName+"="+m.Name, envDir+"="+m.Dir)
	m.init.Stdout, m.init.Stderr = w, &stderr
	m.init.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	err = m.starts.start(m.init)
	_ = w.Close()
	if err != nil {
		return err
	}
	if said, err := io.ReadAll(ready); err != nil || !strings.HasPrefix(string(said), "ready") {
		return fmt.Errorf("init ended: %s %w", stderr.String(), errors.Join(err, m.init.Wait()))
	}
	if m.thread, err = enter(m.init.Process.Pid); err != nil {
		return err
	}
	return m.network(func(h *netlink.Handle) error { return linkUp(h, "lo") })
}

// Crash kills the machine as a power failure would: all processes at once, no goodbye.
func (m *Machine) Crash() {
	if m.thread != nil {
		m.thread.close()
		m.thread = nil
	}
	if m.init != nil && m.init.Process != nil {
		_ = m.init.Process.Kill()
		_ = m.init.Wait()
		m.init = nil
	}
}

func (m *Machine) close() {
	if m.t.Failed() {
		m.diagnose()
	}
	m.Crash()
	m.keepLogs(os.Getenv("E2E_LOGS"))
	if err := sweep(m.Name); err != nil {
		m.t.Errorf("machine %s: %v", m.Name, err)
	}
	if err := os.RemoveAll(m.Dir); err != nil {
		m.t.Errorf("machine %s: %v", m.Name, err)
	}
}

// keepLogs copies the machine's logs into a directory, if one is named.
func (m *Machine) keepLogs(dir string) {
	if dir == "" {
		return
	}
	logs, _ := filepath.Glob(filepath.Join(m.Dir, "*.log"))
	for _, log := range logs {
		text, err := os.ReadFile(log)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, m.Name+"-"+filepath.Base(log)), text, 0o600)
		}
		if err != nil {
			m.t.Error(err)
		}
	}
}

// diagnose prints the end of every log of the machine.
func (m *Machine) diagnose() {
	logs, _ := filepath.Glob(filepath.Join(m.Dir, "*.log"))
	more, _ := filepath.Glob(filepath.Join(m.Dir, "varlib", "everynode", "logs", "*.log"))
	for _, path := range append(logs, more...) {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
		lines = lines[max(0, len(lines)-15):]
		for i, line := range lines {
			lines[i] = line[:min(len(line), 400)] // some errors print whole objects
		}
		m.t.Logf("=== the end of %s\n%s", path, strings.Join(lines, "\n"))
	}
}

// Do runs f with the machine's files and network.
func (m *Machine) Do(f func()) { m.thread.do(f) }

// PID is the machine's init, as the real machine sees it; its namespaces are in /proc/PID/ns.
func (m *Machine) PID() int { return m.init.Process.Pid }

// Path is where a file below the machine's /var/lib or /var/log is on the real machine.
func (m *Machine) Path(path string) string {
	for from, to := range map[string]string{"/var/lib/": "varlib", "/var/log/": "varlog"} {
		if rest, ok := strings.CutPrefix(path, from); ok {
			return filepath.Join(m.Dir, to, rest)
		}
	}
	m.t.Fatalf("%s: only /var/lib and /var/log of a machine are files of the real one", path)
	return ""
}

// Dial connects from within the machine.
func (m *Machine) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	m.Do(func() { conn, err = (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, address) })
	return conn, err
}

// Listen listens within the machine until the test ends.
func (m *Machine) Listen(address string) net.Listener {
	m.t.Helper()
	var l net.Listener
	var err error
	m.Do(func() { l, err = net.Listen("tcp", address) })
	if err != nil {
		m.t.Fatalf("machine %s: %v", m.Name, err)
	}
	m.t.Cleanup(func() { _ = l.Close() })
	return l
}

// Process is a program that runs in a machine.
type Process struct {
	Log  string
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// Start runs a program until the test ends, with its output in a log of the given name.
func (m *Machine) Start(log string, argv ...string) *Process {
	m.t.Helper()
	p := &Process{Log: filepath.Join(m.Dir, log+".log"), cmd: exec.Command(argv[0], argv[1:]...), done: make(chan struct{})}
	out, err := os.OpenFile(p.Log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		m.t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Dir = out, out, "/"
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Ptrace: m.Clock != 0} // it dies with the machine's init
	m.Do(func() { err = p.cmd.Start() })
	if err == nil && m.Clock != 0 {
		err = m.release(p)
	}
	if err != nil {
		m.t.Fatalf("machine %s: %v", m.Name, err)
	}
	go func() { p.err = p.cmd.Wait(); close(p.done) }()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.processes = append(m.processes, p)
	return p
}

// PID is the process's id on the real machine.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Kill ends the process with SIGKILL.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

// Stop asks the process to end, and returns how long that took, or an error after the time given.
func (p *Process) Stop(within time.Duration) (time.Duration, error) {
	began := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, err
	}
	select {
	case <-p.done:
		return time.Since(began), p.err
	case <-time.After(within):
		p.Kill()
		return time.Since(began), fmt.Errorf("still there after %s", within)
	}
}

// Result is what a command said.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// Run runs a command in the machine to its end.
func (m *Machine) Run(ctx context.Context, argv ...string) (Result, error) {
	return m.RunWith(ctx, "", argv...)
}

// RunWith is Run with text on standard input.
func (m *Machine) RunWith(ctx context.Context, stdin string, argv ...string) (Result, error) {
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Dir = strings.NewReader(stdin), &out, &errOut, "/"
	// A daemon that the command leaves behind may hold the pipes open.
	cmd.WaitDelay = 2 * time.Second
	var err error
	m.Do(func() { err = cmd.Start() })
	if err != nil {
		return Result{}, err
	}
	err = cmd.Wait()
	r := Result{Stdout: out.String(), Stderr: errOut.String(), Code: cmd.ProcessState.ExitCode()}
	var exit *exec.ExitError
	if errors.As(err, &exit) || errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	return r, err
}

// network runs f with a handle to the machine's network.
func (m *Machine) network(f func(h *netlink.Handle) error) error {
	ns, err := netns.GetFromPid(m.PID())
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	return f(h)
}

func linkUp(h *netlink.Handle, name string) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	return h.LinkSetUp(link)
}

func addAddress(h *netlink.Handle, name, cidr string) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	a, err := netlink.ParseAddr(cidr)
	if err != nil {
		return err
	}
	return h.AddrAdd(link, a)
}

// AddUplink gives the machine an interface with an address and a default route that leads nowhere,
// as a machine has whose network is down behind the first switch.
func (m *Machine) AddUplink() error {
	return m.network(func(h *netlink.Handle) error {
		if err := h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "uplink"}); err != nil {
			return err
		}
		if err := addAddress(h, "eth0", "10.206.1.2/24"); err != nil {
			return err
		}
		for _, name := range []string{"eth0", "uplink"} {
			if err := linkUp(h, name); err != nil {
				return err
			}
		}
		return h.RouteAdd(&netlink.Route{Gw: net.IPv4(10, 206, 1, 1)})
	})
}
