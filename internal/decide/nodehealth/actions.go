package nodehealth

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Actions is the work that Next found. Nodes are sorted by name; pods by when they were due, then by name.
type Actions struct {
	// Statuses are conditions to write into nodes' statuses, Taintings taints and labels of nodes.
	Statuses  []Status   `json:"statuses,omitempty"`
	Taintings []Tainting `json:"taintings,omitempty"`
	// Unready are pods whose Ready condition becomes False: their node cannot vouch for them. Evictions are pods to
	// delete.
	Unready   []Pod `json:"unready,omitempty"`
	Evictions []Pod `json:"evictions,omitempty"`
	// Reprieves are pods that would have been evicted later and will not be. Nothing is to be done or reported.
	Reprieves []Pod `json:"reprieves,omitempty"`
	// Fleet is the state of the fleet, when it changed.
	Fleet *Fleet `json:"fleet,omitempty"`
	// WakeUp is when Next should be called even if nothing happens; zero for never.
	WakeUp time.Time `json:"wakeUp,omitzero"`
	// More says that there was more to do than room for it: call Next as soon as there is room.
	More bool `json:"more,omitempty"`
}

// Len counts the actions that take a place in the room given to Next.
func (a *Actions) Len() int {
	return len(a.Statuses) + len(a.Taintings) + len(a.Unready) + len(a.Evictions)
}

// Status asks for conditions to be merged by their type into a node's status, if the node still is of that
// version: else it may just have spoken.
type Status struct {
	Node       string                 `json:"node"`
	UID        types.UID              `json:"uid"`
	Version    string                 `json:"version"`
	Conditions []corev1.NodeCondition `json:"conditions"`
	Reason     Reason                 `json:"reason"`
	// LastSign is when the node gave its last sign of life, or was first seen.
	LastSign time.Time `json:"lastSign"`
}

// Tainting asks for all of a node's taints to be replaced by Taints, and for Labels to be set, if the node still
// is of that version.
type Tainting struct {
	Node    string            `json:"node"`
	UID     types.UID         `json:"uid"`
	Version string            `json:"version"`
	Taints  []corev1.Taint    `json:"taints"`
	Added   []corev1.Taint    `json:"added,omitempty"`
	Removed []corev1.Taint    `json:"removed,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	Reason  Reason            `json:"reason"`
}

// Pod is one pod, and no later one of the same name.
type Pod struct {
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	UID       types.UID `json:"uid"`
	Node      string    `json:"node"`
	Reason    Reason    `json:"reason"`
	// Due is since when it was to be done.
	Due time.Time `json:"due"`
}

// Reason says why an action is taken.
type Reason string

// The reasons for what is written into a node.
const (
	// Silent: the node has neither renewed its lease nor reported for the grace period.
	Silent Reason = "Silent"
	// NeverReported: nor has it ever.
	NeverReported Reason = "NeverReported"
	// NotReady and Unreachable: its Ready condition is not True, or not known.
	NotReady    Reason = "NotReady"
	Unreachable Reason = "Unreachable"
	// Ready: it is ready again.
	Ready Reason = "Ready"
	// Condition: another condition changed, or the node was cordoned or uncordoned.
	Condition Reason = "Condition"
	// FleetGone: no node at all is ready, so that the fault is not taken to be the nodes'.
	FleetGone Reason = "FleetGone"
	// Labels: only labels are to be mended.
	Labels Reason = "Labels"
)

// The reasons for what is done to a pod.
const (
	// NodeNotReady: its node stopped being ready.
	NodeNotReady Reason = "NodeNotReady"
	// Untolerated: it does not tolerate a NoExecute taint of its node.
	Untolerated Reason = "Untolerated"
	// TolerationExpired: it tolerated one for some time, which is over.
	TolerationExpired Reason = "TolerationExpired"
	// Tolerated: it tolerates every NoExecute taint that its node now has.
	Tolerated Reason = "Tolerated"
)
