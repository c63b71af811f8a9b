package podlife

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Kind of a step.
type Kind string

// The steps of a pod's life, in the order in which a pod meets them.
const (
	// SetUpVolumes makes the volumes ready.
	SetUpVolumes Kind = "SetUpVolumes"
	// EnsureImage gets the image of Container onto the node.
	EnsureImage Kind = "EnsureImage"
	// RunSandbox makes the cgroup and runs sandbox number Attempt.
	RunSandbox Kind = "RunSandbox"
	// StartContainer creates and starts attempt number Attempt of Container in
	// sandbox SandboxID, notes Delay with it, and runs its postStart hook.
	StartContainer Kind = "StartContainer"
	// StopContainer runs the preStop hook (if Hook), sends the stop signal and,
	// after Grace seconds in all, kills container ID.
	StopContainer Kind = "StopContainer"
	// PreStop runs the preStop hook of container ID, for Grace seconds at most, while
	// the container waits for its turn to be stopped.
	PreStop Kind = "PreStop"
	// ResizePod gives the pod's cgroup and its running containers the resources of
	// the spec, but for containers that restart to get them.
	ResizePod Kind = "ResizePod"
	// RemoveContainer removes the dead container ID and its log.
	RemoveContainer Kind = "RemoveContainer"
	// StopSandbox stops sandbox ID and so releases its network.
	StopSandbox Kind = "StopSandbox"
	// RemoveSandbox removes sandbox ID and all containers in it.
	RemoveSandbox Kind = "RemoveSandbox"
	// TearDown removes the volumes and the cgroup.
	TearDown Kind = "TearDown"
	// DeletePod makes sure that the plan's status is stored, then deletes the pod
	// from the API with grace period 0, by UID.
	DeletePod Kind = "DeletePod"
)

// Step is one thing to do. Fields that its kind does not mention are zero.
type Step struct {
	Kind      Kind
	Container string // name in the spec
	Image     string // as the spec names it
	ID        string // of a container or sandbox in the runtime
	SandboxID string
	Attempt   uint32
	Delay     time.Duration
	// Grace is what is left of the Total grace period, both in seconds.
	Grace, Total int64
	Hook         bool
	// Again is for containers that are stopped in order to be started again.
	Again Again
	// Why in words, for the log and for events.
	Why string
}

// Again says whether a container that is stopped shall start again, whatever its exit code.
type Again string

// The ways to start again.
const (
	No Again = ""
	// AfterDelay: its back-off counts the restart like any other.
	AfterDelay Again = "AfterDelay"
	// AtOnce: nothing was wrong with it.
	AtOnce Again = "AtOnce"
)

// Key identifies the step among those of one pod: a step is not begun again
// while one of the same key is in flight.
func (s Step) Key() string {
	switch s.Kind {
	case StopContainer:
		return fmt.Sprintf("%s/%s/%d", s.Kind, s.ID, s.Total)
	case EnsureImage:
		return string(s.Kind) + "/" + s.Container + "/" + s.Image
	case StartContainer:
		return string(s.Kind) + "/" + s.Container
	case SetUpVolumes, RunSandbox, ResizePod, TearDown, DeletePod:
		return string(s.Kind)
	}
	return string(s.Kind) + "/" + s.ID
}

// Plan is what to do now.
type Plan struct {
	// Steps that may all begin now, in order.
	Steps []Step
	// Status to report.
	Status corev1.PodStatus
	// Report is the earliest time to report it: a pod that is starting or stopping
	// without trouble is about to have a better status. Zero: at once.
	Report time.Time
	// Wake is when to decide again even if no fact changes. Zero: never.
	Wake time.Time
	// Ending: the pod will not run again. Pulls and hooks of starting containers
	// may be cancelled; startup and liveness probes stop.
	Ending bool
	// Probe lists the IDs of the containers whose probes should run.
	Probe []string
	// Done: nothing of the pod is left, neither here nor in the API.
	Done bool
}
