package podlife

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Facts is all that is known of one pod. Decide reads it and never changes it.
type Facts struct {
	// Pod as last read from the API (or a manifest). Never nil.
	Pod *corev1.Pod
	// Gone: the API no longer has this pod (by UID).
	Gone bool
	// Reported is the status last decided, the basis of transition times and of
	// what must not be forgotten. Nil after a start: Pod.Status is the basis then.
	Reported *corev1.PodStatus
	// Seen is when this agent first saw the pod.
	Seen time.Time
	// Written is when the API last took a status from this agent; zero: never yet.
	Written time.Time
	// Crowded: the node starts many pods at once.
	Crowded bool
	// EndingSince is when Decide first said Plan.Ending; zero before.
	EndingSince time.Time
	// Rejected: the node did not admit the pod.
	Rejected *Verdict
	// Evicted: the node wants the pod to go (pressure, shutdown, a critical pod).
	Evicted *Eviction

	// Reclaim: the node's disk is short, and records of ended containers shall go.
	Reclaim bool
	// Resize: the spec asks for other resources than the node can grant now; Pod has
	// those granted before.
	Resize *Verdict
	// Resizing: the resources granted have changed, and not all follows them yet.
	Resizing bool

	// HostIPs of the node, the primary one first.
	HostIPs []string
	// NetworkError says why pods of the pod network cannot start, or is empty.
	NetworkError string

	// Sandboxes and Containers that the runtime has for this pod, in any order.
	Sandboxes  []Sandbox
	Containers []Container
	// VolumesReady: Setup has succeeded since the agent started.
	VolumesReady bool
	// TornDown: volumes and cgroup of the ended pod are gone.
	TornDown bool
	// Images that are ready, by container name; see ImageReady.
	Images map[string]ImageReady
	// Probes by container ID. A missing entry: nothing was probed yet.
	Probes map[string]Probe
	// Hooked are containers whose preStop hook has run ahead of their stop, by ID.
	Hooked map[string]bool
	// Again are containers that were stopped in order to be started again, by ID.
	Again map[string]Again
	// InFlight are the steps begun and not yet finished, by Step.Key.
	InFlight map[string]Step
	// Failures are the last failures of steps that have not succeeded since, by Step.Key.
	Failures map[string]Failure
}

// Verdict is why a pod may not run here; it becomes the pod's reason and message.
type Verdict struct{ Reason, Message string }

// Eviction is why and how a pod has to leave the node.
type Eviction struct {
	Verdict
	// Grace bounds the pod's grace period, in seconds. Nil: its own.
	Grace *int64
	// Disruption, if not empty, becomes the message of the condition DisruptionTarget: the pod is
	// not to blame.
	Disruption string
	// MaySucceed: a pod whose containers have all done their work by then has succeeded.
	MaySucceed bool
}

// Sandbox is a pod sandbox in the runtime.
type Sandbox struct {
	ID      string
	Attempt uint32
	Ready   bool
	Created time.Time
	// IPs of the pod; empty on the host's network.
	IPs []string
}

// ContainerState is the runtime's view.
type ContainerState string

// The states of a container.
const (
	Created ContainerState = "Created"
	Running ContainerState = "Running"
	Exited  ContainerState = "Exited"
	// Unknown is a container that the runtime has lost track of. It may be alive.
	Unknown ContainerState = "Unknown"
)

// Container is one attempt of a container in the runtime.
type Container struct {
	ID, Name, SandboxID string
	// Attempt is 0 for the first start, and so the restart count.
	Attempt  uint32
	State    ContainerState
	Created  time.Time
	Started  time.Time
	Finished time.Time
	ExitCode int32
	// Interrupted: the runtime gave it up while it was starting, through no fault of
	// its own. Unless it was reported as running, it never ran, and its number is
	// used again.
	Interrupted bool
	// Reason and Message as the runtime and the termination message file give them.
	Reason, Message string
	// Image is the name it was started from, ImageRef what that resolved to.
	Image, ImageRef string
	// Hash is Hash of the container's spec when it was created; 0 if unknown.
	Hash uint64
	// Resources that it runs with, cpu and memory only; one that is missing on one
	// side is not known. Nil: as the spec says.
	Resources *corev1.ResourceRequirements
	// Delay is the back-off that the next attempt must wait after this one ends,
	// as Step.Delay gave it when this one was created.
	Delay time.Duration
}

func (c Container) live() bool { return c.State == Running || c.State == Unknown }

// ImageReady is an image that a container may be created from.
type ImageReady struct {
	// Image as the container names it; another name makes the entry void.
	Image string
	// Ref is the runtime's id of it.
	Ref string
	// Attempt of the container for which it was ensured. The pull policy Always
	// asks anew for each attempt.
	Attempt uint32
}

// Probe holds the results of a container's probes so far.
type Probe struct {
	// Started: the startup probe has succeeded (or there is none).
	Started bool
	// Ready: the readiness probe succeeds (or there is none).
	Ready bool
	// Unhealthy: the startup or liveness probe has failed for good; the container
	// has to be restarted. Message says which and why.
	Unhealthy bool
	Message   string
	// Grace is the probe's own terminationGracePeriodSeconds.
	Grace *int64
}

// Failure of a step.
type Failure struct {
	// At is when it ended, Count how often it has failed in a row.
	At    time.Time
	Count int
	// Attempt of the container (or sandbox) that failed.
	Attempt uint32
	// Reason as users know it (ErrImagePull, CreateContainerError, …) and Message.
	// No reason: the runtime did not answer, which says nothing about the pod.
	Reason, Message string
}
