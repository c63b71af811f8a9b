package placement

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Outcome is how far a node is open to a daemon. Outcomes are ordered: that of several rules is the least.
type Outcome uint8

const (
	// Out means that no pod is started and one that is there is removed.
	Out Outcome = iota
	// Stay means that no pod is started, but one that is there may stay (a NoSchedule taint came after it).
	Stay
	// In means that exactly one pod belongs here.
	In
)

// String returns the word that users see.
func (o Outcome) String() string {
	return [...]string{"out", "stay", "in"}[o]
}

// MarshalText makes the outcome readable in JSON.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// Verdict is an outcome and every reason that keeps it from being In.
type Verdict struct {
	Outcome Outcome  `json:"outcome"`
	Reasons []Reason `json:"reasons,omitempty"`
}

// String joins the reasons: "out: taint gpu:NoExecute is not tolerated".
func (v Verdict) String() string {
	if len(v.Reasons) == 0 {
		return v.Outcome.String()
	}
	parts := make([]string, len(v.Reasons))
	for i, r := range v.Reasons {
		parts[i] = r.String()
	}
	return v.Outcome.String() + ": " + strings.Join(parts, "; ")
}

// Rule names the rule behind a reason.
type Rule string

// The rules of eligibility, and those of room.
const (
	NodeName     Rule = "NodeName"
	NodeSelector Rule = "NodeSelector"
	NodeAffinity Rule = "NodeAffinity"
	Taint        Rule = "Taint"

	Resource Rule = "Resource"
	HostPort Rule = "HostPort"
	PodCount Rule = "PodCount"
)

// Reason says which rule keeps a pod off a node. Wants and Has read on their own; the typed fields carry the
// same for programs.
type Reason struct {
	Rule Rule `json:"rule"`
	// Wants is what the template asks for, as a user would write it: "disk in (ssd, nvme)".
	Wants string `json:"wants,omitempty"`
	// Has is what the node has instead: "disk=hdd", "no label disk".
	Has string `json:"has,omitempty"`

	// Term is the number of the affinity term, from 1; terms are alternatives, so each has its reason.
	Term int `json:"term,omitempty"`
	// Requirement is the selector requirement that the node does not meet.
	Requirement *corev1.NodeSelectorRequirement `json:"requirement,omitempty"`
	// Taint is the taint that no toleration matches.
	Taint *corev1.Taint `json:"taint,omitempty"`
	// Shortage is the resource that the node has too little of.
	Shortage *Shortage `json:"shortage,omitempty"`
	// Port is the host port that is taken; HeldBy the pod (namespace/name) that holds it.
	Port   *Port  `json:"port,omitempty"`
	HeldBy string `json:"heldBy,omitempty"`
}

// String is one line for a table or an event.
func (r Reason) String() string {
	switch r.Rule {
	case NodeName:
		return fmt.Sprintf("the template names node %s", r.Wants)
	case NodeSelector:
		return fmt.Sprintf("nodeSelector wants %s, the node has %s", r.Wants, r.Has)
	case NodeAffinity:
		return fmt.Sprintf("affinity term %d wants %s, the node has %s", r.Term, r.Wants, r.Has)
	case Taint:
		return fmt.Sprintf("taint %s is not tolerated", r.Has)
	case HostPort:
		return fmt.Sprintf("host port %s is held by pod %s", r.Wants, r.HeldBy)
	default:
		return fmt.Sprintf("%s, the node has %s", r.Wants, r.Has)
	}
}
