package pods

import (
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A start that was cut off by a kill is told from a container that ended, in the words of containerd.
func TestInterruptedStarts(t *testing.T) {
	const canceled = `failed to start containerd task "x": context canceled: unknown`
	exited := runtimeapi.ContainerState_CONTAINER_EXITED
	for name, c := range map[string]struct {
		status *runtimeapi.ContainerStatus
		want   bool
	}{
		"created":                            {&runtimeapi.ContainerStatus{State: runtimeapi.ContainerState_CONTAINER_CREATED}, false},
		"ended":                              {&runtimeapi.ContainerStatus{State: exited, StartedAt: 1, ExitCode: 137, Reason: "Error"}, false},
		"the agent was killed":               {&runtimeapi.ContainerStatus{State: exited, ExitCode: 128, Reason: "StartError", Message: canceled}, true},
		"runc was killed":                    {&runtimeapi.ContainerStatus{State: exited, ExitCode: 128, Reason: "StartError", Message: "OCI runtime start failed: : signal: killed: unknown"}, true},
		"it cannot start":                    {&runtimeapi.ContainerStatus{State: exited, ExitCode: 128, Reason: "StartError", Message: "exec: \"no\": not found"}, false},
		"its memory does not suffice":        {&runtimeapi.ContainerStatus{State: exited, ExitCode: 128, Reason: "StartError", Message: "container init was OOM-killed (memory limit too low?)"}, false},
		"containerd was killed under it":     {&runtimeapi.ContainerStatus{State: exited, ExitCode: 137, Reason: "Error"}, true},
		"containerd lost it":                 {&runtimeapi.ContainerStatus{State: exited, ExitCode: 255, Reason: "Unknown"}, true},
		"it ended while containerd was away": {&runtimeapi.ContainerStatus{State: exited, ExitCode: 0, Reason: "Completed"}, false},
		"runc's first process failed":        {&runtimeapi.ContainerStatus{State: exited, ExitCode: 1, Reason: "Error"}, true},
	} {
		if got := interrupted(c.status); got != c.want {
			t.Errorf("%s: interrupted %v", name, got)
		}
	}
}
