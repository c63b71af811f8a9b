package sim

import (
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
)

// MaxNodes bounds a world: beyond it, memory rather than the machine would be what is tried.
const MaxNodes = 200_000

// Options describe a world.
type Options struct {
	// Nodes is how many there are at the beginning: 1 to MaxNodes.
	Nodes int
	// Seed names the history.
	Seed uint64
	// Faults is how much goes wrong.
	Faults Faults
	// Duration is how long mishaps go on, in virtual time; then everything works, and the world comes to rest.
	// Without faults it does not matter.
	Duration time.Duration
	// DaemonSet is what is applied; its namespace, name, selector and template must be set. It is not changed.
	DaemonSet *appsv1.DaemonSet
	// NodeLabels are set on every node, besides those that nodes have by themselves.
	NodeLabels map[string]string
	// PodStart is about how long a pod takes from being seen by its node to Ready; 0 means 3s.
	PodStart time.Duration
	// Parallelism is how many writes a controller has in flight at most; 0 means 64.
	Parallelism int

	// bug plants a mistake into the controller that drives the machine, to show that it is caught.
	bug bug
}

// Validate says which option is out of range.
func (o *Options) Validate() error {
	switch {
	case o.Nodes < 1 || o.Nodes > MaxNodes:
		return fmt.Errorf("nodes is %d, want 1 to %d", o.Nodes, MaxNodes)
	case o.Duration < 0 || o.Duration > 30*24*time.Hour:
		return fmt.Errorf("duration is %v, want 0s to 720h", o.Duration)
	case o.PodStart < 0 || o.PodStart > time.Hour:
		return fmt.Errorf("pod start is %v, want 0s (the default, 3s) to 1h", o.PodStart)
	case o.Parallelism < 0 || o.Parallelism > 4096:
		return fmt.Errorf("parallelism is %d, want 0 (the default, 64) to 4096", o.Parallelism)
	case o.DaemonSet == nil:
		return errors.New("a DaemonSet is required")
	}
	return validateDaemonSet(o.DaemonSet)
}

// Faults is how much goes wrong in a world. The zero value is a world where everything works; use [ParseFaults].
type Faults struct {
	name string
	// every is the mean time between two mishaps of one node, cluster that of those of the control plane and of
	// what users do. 0: never.
	every, cluster time.Duration
	// Of 1000 writes so many are refused, lost on their way, done without an answer, or done seconds later
	// without an answer; and so many watch events are repeated or held up.
	refused, lost, unanswered, late, repeated, heldUp int
	// Of 1000 pods so many fail when they start.
	failing int
	// overlap lets a deposed leader act for seconds beside the next one, as no lease would allow. Names that follow
	// from what they are for do not always keep the two apart then (two may differ in the revision or the attempt),
	// so two pods on a node are not held against the machine, as long as it mends that.
	overlap bool
}

// The levels of faults.
var levels = []Faults{
	{name: "none"},
	{name: "some", every: 2 * time.Hour, cluster: 5 * time.Minute, refused: 2, lost: 1, unanswered: 1, late: 1, repeated: 5, heldUp: 5, failing: 2},
	{name: "many", every: 2 * time.Minute, cluster: 20 * time.Second, refused: 30, lost: 20, unanswered: 20, late: 5, repeated: 50, heldUp: 50, failing: 30},
}

// ParseFaults reads a level: none, some or many.
func ParseFaults(name string) (Faults, error) {
	for _, f := range levels {
		if f.name == name {
			return f, nil
		}
	}
	return Faults{}, fmt.Errorf("%q is no level of faults: want none, some or many", name)
}

// String returns the level's name.
func (f Faults) String() string {
	if f.name == "" {
		return "none"
	}
	return f.name
}

// bug is a mistake that a test plants.
type bug int

const (
	_ bug = iota
	// forgetful: a create counts as not done, so the freshness gate opens before the pod is seen; and names are
	// drawn, not derived.
	forgetful
	// generous: the machine is told of two more that may be unavailable.
	generous
	// deaf: a broken watch goes on without the list that makes up for it.
	deaf
)
