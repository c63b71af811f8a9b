package daemonset

import (
	"sync"

	"github.com/everynode/everynode/internal/decide/placement"
)

// Room is the ledger of the nodes' room as the controller and the scheduler share it, so that both never promise the
// same room. The controller holds it for one event or one look at a DaemonSet at a time; the scheduler asks before it
// takes a node for a pod, and promises the node's room to the pod until the controller has seen it bound.
//
// A promise that nobody keeps ends with the pod, by Release, or with the term.
type Room struct {
	mu     sync.Mutex
	ledger *placement.Ledger
	freed  func()
}

// NewRoom returns an empty one. It serves one term of leadership.
func NewRoom() *Room { return &Room{ledger: placement.NewLedger()} }

// Outstanding adds up what has been promised on a node beyond the pods that the asker counts.
func (r *Room) Outstanding(node string, counted func(podKey string) bool) (placement.Demand, int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ledger.Outstanding(node, counted)
}

// Reserve promises room to a pod, or says why the node has too little. A node that the controller has not seen yet
// has promised nothing, so the asker's own judgement stands.
func (r *Room) Reserve(podKey, node string, d *placement.Demand) []placement.Reason {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ledger.Release(podKey) // of an attempt before
	if r.ledger.Knows(node) {
		if why := r.ledger.Explain(node, d); len(why) > 0 {
			return why
		}
	}
	r.ledger.Reserve(podKey, node, d)
	return nil
}

// Release takes a promise back, unless the pod has been seen bound.
func (r *Room) Release(podKey string) { r.hold(func() { r.ledger.Release(podKey) }) }

// OnFreed has f called whenever room may have become free. It must not block, nor ask for room.
func (r *Room) OnFreed(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.freed = f
}

// hold keeps everybody else out for as long as do takes.
func (r *Room) hold(do func()) {
	if told := r.whileHeld(do); told != nil {
		told()
	}
}

// whileHeld returns who is to be told of it, if the ledger has room that it had not before.
func (r *Room) whileHeld(do func()) (told func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.ledger.Freed()
	do()
	if r.ledger.Freed() == before {
		return nil
	}
	return r.freed
}

// reset makes the ledger empty, for a controller that starts from nothing.
func (r *Room) reset() *placement.Ledger {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ledger = placement.NewLedger()
	return r.ledger
}
