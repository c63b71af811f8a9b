package cluster

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// thread is one thread of the test process that is in the namespaces of a machine. Files that it
// opens and sockets that it makes are the machine's, and the processes that it starts are born
// there, as children of the test.
type thread struct {
	calls chan func()
}

// The main goroutine keeps the main thread, so that no machine gets it: it cannot end before the process does, and
// /proc/self would show the machine's mounts and namespaces.
func init() { runtime.LockOSThread() }

// enter makes a thread and moves it into the namespaces of a process.
func enter(pid int) (*thread, error) {
	t := &thread{calls: make(chan func())}
	entered := make(chan error)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and with it its children (Pdeathsig).
		runtime.LockOSThread()
		err := setns(pid)
		entered <- err
		if err != nil {
			return
		}
		for call := range t.calls {
			call()
		}
	}()
	return t, <-entered
}

func setns(pid int) error {
	// A thread that shares its working directory with others may not change its mounts.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	for _, ns := range []struct {
		file string
		kind int
	}{{"net", unix.CLONE_NEWNET}, {"uts", unix.CLONE_NEWUTS}, {"ipc", unix.CLONE_NEWIPC}, {"pid", unix.CLONE_NEWPID}, {"mnt", unix.CLONE_NEWNS}} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, ns.file))
		if err != nil {
			return err
		}
		err = unix.Setns(int(f.Fd()), ns.kind)
		_ = f.Close()
		if err != nil {
			return fmt.Errorf("setns %s: %w", ns.file, err)
		}
	}
	return nil
}

// do runs f on the thread and waits for it.
func (t *thread) do(f func()) {
	done := make(chan struct{})
	t.calls <- func() { defer close(done); f() }
	<-done
}

// close ends the thread, and every process that it started.
func (t *thread) close() { close(t.calls) }
