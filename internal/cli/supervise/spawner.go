package supervise

import (
	"os/exec"
	"runtime"
)

// spawner starts processes from one thread that lives as long as the program. The kernel sends
// Pdeathsig when the parent's *thread* ends, and Go ends threads as it pleases.
type spawner struct {
	requests chan spawnRequest
}

type spawnRequest struct {
	cmd    *exec.Cmd
	result chan error
}

func newSpawner() *spawner {
	s := &spawner{requests: make(chan spawnRequest)}
	go func() {
		runtime.LockOSThread()
		for r := range s.requests {
			r.result <- r.cmd.Start()
		}
	}()
	return s
}

func (s *spawner) start(cmd *exec.Cmd) error {
	r := spawnRequest{cmd: cmd, result: make(chan error, 1)}
	s.requests <- r
	return <-r.result
}

// close ends the thread, and with it every process that it started.
func (s *spawner) close() { close(s.requests) }
