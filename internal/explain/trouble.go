package explain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/duration"
)

// Trouble is what one container, or the pod itself, says about not being available.
type Trouble struct {
	Pod       string `json:"pod"`
	Container string `json:"container,omitempty"`
	// Reason is the waiting reason ("CrashLoopBackOff"), or one of ours ("NotReady", "Unscheduled").
	Reason   string    `json:"reason"`
	Message  string    `json:"message,omitempty"`
	Restarts int32     `json:"restarts,omitempty"`
	LastExit *LastExit `json:"lastExit,omitempty"`
	// Fails says that the pod keeps failing, rather than being on its way.
	Fails bool `json:"fails,omitempty"`
}

// LastExit is how a container ended the last time.
type LastExit struct {
	Code     int32     `json:"code"`
	Signal   int32     `json:"signal,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Message  string    `json:"message,omitempty"`
	Finished time.Time `json:"finished,omitzero"`
}

// failing are the reasons of a waiting container that do not pass by themselves.
var failing = []string{
	"CrashLoopBackOff", "ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError",
	"RegistryUnavailable", "SignatureValidationFailed", "CreateContainerConfigError", "CreateContainerError",
	"RunContainerError", "PreCreateHookError", "PreStartHookError", "PostStartHookError", "StartError",
}

// String is one line: "container agent: CrashLoopBackOff, 5 restarts, last exit code 1 (Error) 2m ago: no config".
func (t Trouble) line(now time.Time) string {
	var b strings.Builder
	b.WriteString(t.head())
	if t.Restarts > 0 {
		fmt.Fprintf(&b, ", %s", count(int(t.Restarts), "restart"))
	}
	if t.LastExit != nil {
		fmt.Fprintf(&b, ", last %s", t.LastExit)
		if !t.LastExit.Finished.IsZero() {
			fmt.Fprintf(&b, " %s ago", duration.HumanDuration(now.Sub(t.LastExit.Finished)))
		}
		if m := oneLine(t.LastExit.Message); m != "" {
			return b.String() + ": " + m
		}
	}
	if m := oneLine(t.Message); m != "" {
		b.WriteString(": " + m)
	}
	return b.String()
}

// brief groups nodes with the same trouble in a summary.
func (t Trouble) brief() string {
	if t.LastExit == nil {
		return t.head()
	}
	return t.head() + ", last " + t.LastExit.String()
}

func (t Trouble) head() string {
	if t.Container == "" {
		return t.Reason
	}
	return "container " + t.Container + ": " + t.Reason
}

// String is "exit code 137 (OOMKilled)".
func (e *LastExit) String() string {
	s := fmt.Sprintf("exit code %d", e.Code)
	if e.Signal != 0 {
		s = fmt.Sprintf("ended by signal %d", e.Signal)
	}
	if e.Reason != "" {
		s += " (" + e.Reason + ")"
	}
	return s
}

// troublesOf returns why a pod is not available, what fails first; nil if the pod does not say.
func troublesOf(p *corev1.Pod) []Trouble {
	switch {
	case p.Status.Phase == corev1.PodFailed:
		return []Trouble{endedTrouble(p)}
	case p.Spec.NodeName == "":
		return unscheduled(p)
	}
	var all []Trouble
	for _, statuses := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses} {
		for i := range statuses {
			if t, ok := containerTrouble(&statuses[i]); ok {
				t.Pod = p.Name
				all = append(all, t)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Trouble) int {
		switch {
		case a.Fails == b.Fails:
			return 0
		case a.Fails:
			return -1
		default:
			return 1
		}
	})
	if len(all) > 0 && all[0].Fails {
		return slices.DeleteFunc(all, func(t Trouble) bool { return !t.Fails }) // the others wait for it
	}
	if gate, ok := readinessTrouble(p); ok && len(all) == 0 {
		return []Trouble{gate}
	}
	return all
}

func endedTrouble(p *corev1.Pod) Trouble {
	t := Trouble{Pod: p.Name, Reason: "pod failed", Message: p.Status.Message, Fails: true}
	if p.Status.Reason != "" {
		t.Reason = "pod failed: " + p.Status.Reason
	}
	for i := range p.Status.ContainerStatuses {
		if c := &p.Status.ContainerStatuses[i]; c.State.Terminated != nil && c.State.Terminated.ExitCode != 0 {
			t.Container, t.Restarts, t.LastExit = c.Name, c.RestartCount, exitOf(c.State.Terminated)
			break
		}
	}
	return t
}

func unscheduled(p *corev1.Pod) []Trouble {
	t := Trouble{Pod: p.Name, Reason: "the scheduler has not bound the pod"}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status != corev1.ConditionTrue {
			t.Message = c.Message
			if c.Reason != "" && c.Reason != corev1.PodReasonUnschedulable {
				t.Reason += " (" + c.Reason + ")"
			}
		}
	}
	return []Trouble{t}
}

// containerTrouble says what is wrong with a container that is not ready; ok is false if it is, or has done its
// work.
func containerTrouble(c *corev1.ContainerStatus) (Trouble, bool) {
	t := Trouble{Container: c.Name, Restarts: c.RestartCount, LastExit: exitOf(c.LastTerminationState.Terminated)}
	switch {
	case c.State.Waiting != nil:
		t.Reason, t.Message = c.State.Waiting.Reason, c.State.Waiting.Message
		if t.Reason == "" {
			t.Reason = "waiting"
		}
		t.Fails = slices.Contains(failing, t.Reason)
	case c.State.Terminated != nil && (c.Ready || c.State.Terminated.ExitCode == 0 && c.State.Terminated.Reason == "Completed" && c.RestartCount == 0):
		return Trouble{}, false // an init container that has done its work
	case c.State.Terminated != nil:
		t.Reason, t.LastExit, t.Fails = "ended", exitOf(c.State.Terminated), c.State.Terminated.ExitCode != 0
	case c.Ready:
		return Trouble{}, false
	case c.State.Running != nil && c.Started != nil && !*c.Started:
		t.Reason = "running, its startup probe has not passed"
	case c.State.Running != nil:
		t.Reason = "running, but not ready"
	default:
		t.Reason = "not started"
	}
	return t, true
}

// readinessTrouble is for pods whose containers are all well: what else makes the pod not ready.
func readinessTrouble(p *corev1.Pod) (Trouble, bool) {
	for _, c := range p.Status.Conditions {
		if c.Type != corev1.PodReady || c.Status == corev1.ConditionTrue {
			continue
		}
		t := Trouble{Pod: p.Name, Reason: "the pod is not ready", Message: c.Message}
		if c.Reason != "" {
			t.Reason += " (" + c.Reason + ")"
		}
		return t, true
	}
	if len(p.Status.ContainerStatuses) == 0 {
		return Trouble{Pod: p.Name, Reason: "the node has not started the pod"}, true
	}
	return Trouble{}, false
}

func exitOf(t *corev1.ContainerStateTerminated) *LastExit {
	if t == nil {
		return nil
	}
	return &LastExit{Code: t.ExitCode, Signal: t.Signal, Reason: t.Reason, Message: t.Message, Finished: t.FinishedAt.Time}
}

// oneLine makes a message fit a line, and a list of reasons.
func oneLine(s string) string {
	const most = 300
	s = strings.TrimSuffix(strings.Join(strings.Fields(s), " "), ".")
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// count is "1 node", "2 nodes".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
