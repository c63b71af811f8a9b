package pods

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/everynode/everynode/internal/agent/cri"
)

func TestExitNotes(t *testing.T) {
	const exited = runtimeapi.ContainerState_CONTAINER_EXITED
	for name, tc := range map[string]struct {
		note   *cri.Exit
		cutOff bool
		status *runtimeapi.ContainerStatus
		code   int32
		reason string
		kept   bool
	}{
		"forgotten, ended well":      {&cri.Exit{Code: 0}, false, &runtimeapi.ContainerStatus{State: exited, StartedAt: 1, ExitCode: 255, Reason: "Unknown"}, 0, "Completed", true},
		"forgotten, failed":          {&cri.Exit{Code: 3}, false, &runtimeapi.ContainerStatus{State: exited, StartedAt: 1, ExitCode: 255, Reason: "Unknown"}, 3, "Error", true},
		"forgotten, never announced": {nil, false, &runtimeapi.ContainerStatus{State: exited, StartedAt: 1, ExitCode: 255, Reason: "Unknown"}, 255, "Unknown", false},
		"forgotten, note cut off":    {&cri.Exit{Code: 0}, true, &runtimeapi.ContainerStatus{State: exited, StartedAt: 1, ExitCode: 255, Reason: "Unknown"}, 255, "Unknown", true},
		"perhaps runc's own process": {&cri.Exit{Code: 1}, false, &runtimeapi.ContainerStatus{State: exited, ExitCode: 255, Reason: "Unknown"}, 255, "Unknown", true},
		"ended well in the start":    {&cri.Exit{Code: 0}, false, &runtimeapi.ContainerStatus{State: exited, ExitCode: 255, Reason: "Unknown"}, 0, "Completed", true},
		"remembered":                 {&cri.Exit{Code: 0}, false, &runtimeapi.ContainerStatus{State: exited, StartedAt: 1, ExitCode: 137, Reason: "OOMKilled"}, 137, "OOMKilled", false},
		"not noted by CRI yet":       {&cri.Exit{Code: 0}, false, &runtimeapi.ContainerStatus{State: runtimeapi.ContainerState_CONTAINER_RUNNING, StartedAt: 1}, 0, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			notes := exitNotes{filepath.Join(t.TempDir(), "exits")}
			notes.prepare(t.Context())
			if tc.note != nil {
				tc.note.ID, tc.note.At = "c", time.Unix(7, 0)
				notes.note(t.Context(), *tc.note)
			}
			if tc.cutOff {
				if err := os.Truncate(notes.path("c"), 2); err != nil {
					t.Fatal(err)
				}
			}
			s := tc.status
			s.Id = "c"
			notes.complete(s)
			if s.ExitCode != tc.code || s.Reason != tc.reason {
				t.Errorf("code %d, reason %q; want %d, %q", s.ExitCode, s.Reason, tc.code, tc.reason)
			}
			if _, err := os.Stat(notes.path("c")); (err == nil) != tc.kept {
				t.Errorf("the note: %v; want it there: %v", err, tc.kept)
			}
		})
	}
}
