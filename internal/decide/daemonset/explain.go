package daemonset

import (
	"maps"
	"slices"
	"time"

	"github.com/everynode/everynode/internal/decide/placement"
)

// State is what a node is to a DaemonSet, in one word for a user.
type State string

// The states of a node.
const (
	In       State = "in"       // it has an available pod of the current revision
	Out      State = "out"      // the template excludes it; a pod may still be there, to stay or to go
	Pending  State = "pending"  // it should have a pod, which is not there or not available yet
	Updating State = "updating" // its pod is of an old revision, or being replaced
	Failing  State = "failing"  // its pods keep failing
)

// Verdict says what a node is to the DaemonSet, and exactly why.
type Verdict struct {
	Node      string            `json:"node"`
	State     State             `json:"state"`
	Placement placement.Verdict `json:"placement"`
	// Room says what the node lacks for a pod that is missing.
	Room []placement.Reason `json:"room,omitempty"`
	// Scheduler lists what only the scheduler can judge, when a pod waits for it.
	Scheduler []string  `json:"scheduler,omitempty"`
	Pods      []PodFact `json:"pods,omitempty"`
	// RetryAt is when something that failed is tried again.
	RetryAt time.Time `json:"retryAt,omitzero"`
}

// PodFact is what a verdict says of a pod.
type PodFact struct {
	Name        string `json:"name"`
	Revision    string `json:"revision,omitempty"`
	Current     bool   `json:"current"`
	Bound       bool   `json:"bound"`
	Ready       bool   `json:"ready"`
	Available   bool   `json:"available"`
	Ended       bool   `json:"ended,omitempty"`
	Terminating bool   `json:"terminating,omitempty"`
}

// Explain runs the very rules that Next runs and says what came out for one node. An unknown node is out.
func (s *Set) Explain(node string, now time.Time) Verdict {
	v := Verdict{Node: node, State: Out}
	sl := s.slots[node]
	if sl == nil || sl.node == nil {
		v.Placement.Reasons = []placement.Reason{{Rule: placement.NodeName, Wants: node, Has: "no such node"}}
		return v
	}
	v.Placement = s.spec.placement.Explain(sl.node)
	for _, p := range sl.pods {
		v.Pods = append(v.Pods, PodFact{
			Name: p.name, Revision: p.revision, Current: s.spec.updated(p), Bound: p.bound, Ready: p.ready,
			Available: p.available(s.spec.minReady, now), Ended: p.ended(), Terminating: p.terminating,
		})
	}
	v.State = s.state(sl, now)
	if v.State == Pending && sl.first() == nil && s.ledger != nil {
		v.Room = s.ledger.Explain(node, s.spec.placement.Demand())
	}
	if p := sl.first(); v.State == Pending && p != nil && !p.bound {
		v.Scheduler = s.spec.placement.NeedsScheduler()
	}
	for _, at := range []time.Time{sl.retryAt, sl.failures.until()} {
		if at.After(now) && at.After(v.RetryAt) {
			v.RetryAt = at
		}
	}
	return v
}

func (s *Set) state(sl *slot, now time.Time) State {
	p := sl.first()
	switch {
	case sl.outcome != placement.In:
		return Out
	case now.Before(sl.failures.until()) && (p == nil || !p.available(s.spec.minReady, now)):
		return Failing
	case p == nil:
		return Pending
	case p.failed:
		return Failing
	case !s.spec.updated(p) || p.leaving():
		return Updating
	case !p.available(s.spec.minReady, now):
		return Pending
	default:
		return In
	}
}

// Nodes lists every node that the set knows of, sorted.
func (s *Set) Nodes() []string {
	return slices.Sorted(maps.Keys(s.slots))
}

// Lacks says what a node lacks for one more pod of the set, by the ledger; nothing if the scheduler has to judge
// in any case.
func (s *Set) Lacks(node string) []placement.Reason {
	if s.ledger == nil || len(s.spec.placement.NeedsScheduler()) > 0 || s.isRepelled() {
		return nil
	}
	return s.ledger.Explain(node, s.spec.placement.Demand())
}

// TooSmall says what a pod of the set asks for beyond all that the node has.
func (s *Set) TooSmall(node string) []placement.Reason {
	if s.ledger == nil {
		return nil
	}
	return s.ledger.TooSmall(node, s.spec.placement.Demand())
}

// Contradiction says why no node can ever have a pod of the set, whatever its labels; "" if one could.
func (s *Set) Contradiction() string { return s.spec.placement.Contradiction() }

// PodsOf returns the names of the set's pods that carry a revision hash, sorted. It costs O(pods).
func (s *Set) PodsOf(revision string) []string {
	var names []string
	for name, p := range s.pods {
		if p.revision == revision && !p.orphan {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
