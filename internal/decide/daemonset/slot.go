package daemonset

import (
	"slices"
	"strings"
	"time"

	"github.com/everynode/everynode/internal/decide/placement"
	"k8s.io/apimachinery/pkg/types"
)

// slot is one node's place in the set. It also exists for a node that is gone, or not seen yet, while a pod
// refers to it.
type slot struct {
	name    string
	node    *placement.Node // nil: there is no such node
	outcome placement.Outcome
	pods    []*pod // every pod that refers to the node, those that are over included; few

	promise  *promise // our create that has not been seen
	attempt  int32    // attempts below have names that others hold
	retries  int32    // failed writes in a row
	retryAt  time.Time
	doubt    string  // the name of a create whose answer was lost, until one is answered: the pod may be there
	failures backoff // of pods that fail on this node

	tally   tally // what the set's counters hold for this slot
	wave    wave  // its part in a rolling update
	changed bool  // in Set.changed

	due                                   time.Time // when to look again, if timerAt != 0
	timerAt, todoAt, missingAt, candidate int32     // positions in the set's heaps
}

// promise is a create that was handed out.
type promise struct {
	name  string
	uid   types.UID // as the API answered; "" before
	seen  types.UID // of the pod that was last seen under the name; maybe an earlier one
	bound bool      // room is reserved for it
	since time.Time
	epoch int // of the slow start
}

// live calls f for each pod that is ours and not over, until f returns false.
func (sl *slot) live(f func(*pod) bool) {
	for _, p := range sl.pods {
		if !p.orphan && !p.over() && !f(p) {
			return
		}
	}
}

// first returns the live pod that counts in the status, nil if there is none.
func (sl *slot) first() *pod {
	var first *pod
	sl.live(func(p *pod) bool {
		if first == nil || p.before(first) {
			first = p
		}
		return true
	})
	return first
}

// orphaned says whether a pod here waits for its adoption: until then it is not known whether one is missing. That
// we have asked it to go, before its owner was taken from it, changes nothing until it is seen going.
func (sl *slot) orphaned() bool {
	for _, p := range sl.pods {
		if p.orphan && !p.terminating {
			return true
		}
	}
	return false
}

// hold adds the pod, keeping the pods in the order of their names.
func (sl *slot) hold(p *pod) {
	i, _ := slices.BinarySearchFunc(sl.pods, p.name, func(q *pod, name string) int { return strings.Compare(q.name, name) })
	sl.pods = slices.Insert(sl.pods, i, p)
}

// drop removes the pod.
func (sl *slot) drop(p *pod) {
	if i := slices.Index(sl.pods, p); i >= 0 {
		sl.pods = slices.Delete(sl.pods, i, i+1)
	}
}

// needed says whether anything still refers to the slot.
func (sl *slot) needed() bool {
	return sl.node != nil || len(sl.pods) > 0 || sl.promise != nil
}
