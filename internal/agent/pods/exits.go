package pods

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/agent/cri"
)

// exitNotes keeps how containers ended, as containerd announced it, until its CRI plugin tells the
// same. A containerd that is killed between removing what ran and noting how that ended has
// forgotten the exit code, and an init container that had done its work would be run once more.
//
// A note is a file, so that it outlives an agent that is killed at the same time. It need not
// outlive the machine: then the containers are gone too.
type exitNotes struct{ dir string }

// keepNotes is how long a note may wait for its container to be looked at.
const keepNotes = time.Hour

// prepare makes the folder, and sweeps notes of what nobody asked about any more.
func (e exitNotes) prepare(ctx context.Context) {
	if err := os.MkdirAll(e.dir, 0o700); err != nil {
		klog.FromContext(ctx).Error(err, "Ends of containers cannot be noted")
	}
	entries, _ := os.ReadDir(e.dir)
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && time.Since(info.ModTime()) > keepNotes {
			e.forget(entry.Name())
		}
	}
}

func (e exitNotes) path(id string) string { return filepath.Join(e.dir, filepath.Base(id)) }

func (e exitNotes) note(ctx context.Context, exit cri.Exit) {
	if err := os.WriteFile(e.path(exit.ID), fmt.Appendln(nil, exit.Code, exit.At.UnixNano()), 0o600); err != nil {
		klog.FromContext(ctx).V(1).Info("The end of a container was not noted", "container", exit.ID, "err", err)
	}
}

func (e exitNotes) forget(id string) { _ = os.Remove(e.path(id)) } // most have none

// complete fills in what the runtime has forgotten of a container that has ended, and forgets the
// note of one that it remembers.
func (e exitNotes) complete(s *runtimeapi.ContainerStatus) {
	if s.GetState() != runtimeapi.ContainerState_CONTAINER_EXITED {
		return
	}
	if s.Reason != "Unknown" { // containerd's word for having forgotten
		e.forget(s.Id)
		return
	}
	text, err := os.ReadFile(e.path(s.Id))
	if err != nil {
		return
	}
	var code int32
	var at int64
	if n, err := fmt.Sscan(string(text), &code, &at); n != 2 {
		klog.Background().Info("The note of how a container ended is unusable", "container", s.Id, "err", err) // cut off by a kill
		return
	}
	if s.StartedAt == 0 && code != 0 {
		return // perhaps runc's own first process, see interrupted
	}
	s.ExitCode, s.FinishedAt, s.Reason = code, at, "Completed"
	if code != 0 {
		s.Reason = "Error"
	}
}
