package daemonset

import (
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Actions is the work that Next found. Every slice is sorted by the order in which it was decided, which is by
// node name within each rule.
type Actions struct {
	Creates []Create `json:"creates,omitempty"`
	Deletes []Delete `json:"deletes,omitempty"`
	Claims  []Claim  `json:"claims,omitempty"`
	Checks  []Check  `json:"checks,omitempty"`
	// Status is what the DaemonSet's status should be, when that differs from what it is; nil otherwise.
	Status *Status `json:"status,omitempty"`
	// WakeUp is when Next should be called even if nothing happens; zero for never.
	WakeUp time.Time `json:"wakeUp,omitzero"`
	// More says that there was more to do than room for it: call Next as soon as there is room.
	More bool `json:"more,omitempty"`
}

// Len counts the actions that take a place in the room given to Next.
func (a *Actions) Len() int {
	return len(a.Creates) + len(a.Deletes) + len(a.Claims) + len(a.Checks)
}

// Create asks for a pod: Template.Pod makes it. Report with Created or CreateFailed.
type Create struct {
	Node    string `json:"node"`
	Name    string `json:"name"`
	Attempt int    `json:"attempt,omitempty"`
	// Bound says that the node has room, which is now reserved: the pod is created with its nodeName set.
	// An unbound pod belongs to the scheduler.
	Bound  bool   `json:"bound,omitempty"`
	Reason Reason `json:"reason"`

	// Template renders the pod. It is shared, immutable and safe for concurrent use.
	Template *Template `json:"-"`
}

// Delete asks for one pod, and no later one of the same name, to go. Report only a failure.
type Delete struct {
	Node   string    `json:"node"`
	Name   string    `json:"name"`
	UID    types.UID `json:"uid"`
	Reason Reason    `json:"reason"`
}

// Claim asks for a pod's owner to be changed: set to the DaemonSet, or, with Release, taken away. Seeing the
// changed pod is the report; otherwise report ClaimFailed.
type Claim struct {
	Name    string    `json:"name"`
	UID     types.UID `json:"uid"`
	Release bool      `json:"release,omitempty"`
}

// Check asks whether a pod exists, because one of our writes has stayed unseen for long: a create that was
// answered, or a delete. Report Gone if it does not (or under another UID), Found if it does.
type Check struct {
	Node string    `json:"node"`
	Name string    `json:"name"`
	UID  types.UID `json:"uid,omitempty"`
}

// Reason says why an action is taken.
type Reason string

// The reasons for creates and deletes.
const (
	// Missing: the node should have a pod and has none.
	Missing Reason = "Missing"
	// Surge: the pod comes up beside the old one that it will replace.
	Surge Reason = "Surge"
	// Excluded: the node is not, or no longer, open to the template.
	Excluded Reason = "Excluded"
	// Stray: the pod waits for a node that does not exist.
	Stray Reason = "Stray"
	// Excess: the node has another pod, which is the one to keep.
	Excess Reason = "Excess"
	// Failed and Succeeded: the pod has ended; a daemon never should.
	Failed    Reason = "Failed"
	Succeeded Reason = "Succeeded"
	// Outdated: the pod is of an old revision, and the budget allows its replacement.
	Outdated Reason = "Outdated"
	// Replaced: the pod of the new revision on the same node is available.
	Replaced Reason = "Replaced"
)
