package nodehealth

import (
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Set holds the health of all nodes of a cluster. It is not safe for concurrent use.
type Set struct {
	o     Options
	nodes map[string]*node
	// dirty are nodes of which a fact changed since they were last looked at.
	dirty []*node
	// deadlines holds the nodes by when they must be looked at, waiting those whose turn for a NoExecute taint has
	// not come.
	deadlines queue[*node]
	waiting   queue[*node]
	tasks     queue[*task]
	reprieves []Pod
	news      bool // see Pending

	fleet Fleet
	// tainted are the nodes with a NoExecute taint of ours.
	tainted map[*node]struct{}
	// handedOut is when a node last got its turn.
	handedOut time.Time
	// watching is since when signs of life would have been noticed: silence before it means nothing.
	watching time.Time
	promised time.Time // what Next last returned as WakeUp
}

// New makes a Set that knows of no node. Options must be valid.
func New(o Options) *Set {
	return &Set{
		o:     o.withDefaults(),
		nodes: map[string]*node{},
		deadlines: newQueue(func(a, b *node) bool {
			return earlier(a.wake, b.wake, a.name, b.name)
		}, func(n *node) *int32 { return &n.atDeadline }),
		waiting: newQueue(func(a, b *node) bool {
			return earlier(a.transition, b.transition, a.name, b.name)
		}, func(n *node) *int32 { return &n.atWaiting }),
		fleet:   Fleet{State: FleetNormal},
		tasks:   newQueue(taskBefore, func(t *task) *int32 { return &t.at }),
		tainted: map[*node]struct{}{},
	}
}

func earlier(a, b time.Time, aName, bName string) bool {
	if c := a.Compare(b); c != 0 {
		return c < 0
	}
	return aName < bName
}

// node is what is kept of a node, its lease and its pods' tasks.
type node struct {
	name string
	obj  *corev1.Node // the newest known; nil while only the lease is known

	renewed time.Time // the lease's renewTime; zero while it has none
	seen    time.Time // last sign of life by our own clock, or first sight
	// transition orders the nodes that wait for a NoExecute taint: when Ready last changed.
	transition time.Time

	wake                  time.Time
	atDeadline, atWaiting int32

	counted  tally
	dirty    bool
	writing  bool // one write a node at a time: each is made for one version of it
	granted  bool // its turn for a NoExecute taint has come
	failures uint8
	retryAt  time.Time

	tasks map[taskKey]*task // nil for a node without trouble
}

// node returns the record of that name, made if need be.
func (s *Set) node(name string) *node {
	n := s.nodes[name]
	if n == nil {
		n = &node{name: name}
		s.nodes[name] = n
	}
	return n
}

// touch has Next look at the node.
func (s *Set) touch(n *node) {
	s.news = true
	if !n.dirty {
		n.dirty = true
		s.dirty = append(s.dirty, n)
	}
}

// Pending tells whether a fact came since Next was called that may ask for work. A lease that was renewed in time
// does not, so that the driver can leave it at that.
func (s *Set) Pending() bool { return s.news }

// SetNode tells what a node now is. The object is kept and never changed. An older version than the one known is
// ignored.
func (s *Set) SetNode(obj *corev1.Node, now time.Time) {
	n := s.node(obj.Name)
	before := n.obj
	switch {
	case before == nil:
		n.seen = now
	case before.UID != obj.UID:
		s.RemoveNode(before.Name, before.UID)
		n = s.node(obj.Name)
		before, n.seen = nil, now
	case older(obj, before):
		return
	case heartbeat(before, obj):
		n.seen = now
	}
	n.obj = obj
	n.transition = transitionOf(obj)
	if s.waiting.has(n) {
		s.waiting.put(n)
	}
	n.retryAt, n.failures = time.Time{}, 0
	if hasOurNoExecute(obj) {
		s.tainted[n] = struct{}{}
	} else {
		delete(s.tainted, n)
	}
	s.lookAtPods(n, before, now)
	s.touch(n)
}

// older tells whether a is of an earlier version than b: an event that comes after the answer to our own write. A
// version that is no number is not comparable, and taken as it comes.
func older(a, b *corev1.Node) bool {
	x, errA := strconv.ParseUint(a.ResourceVersion, 10, 64)
	y, errB := strconv.ParseUint(b.ResourceVersion, 10, 64)
	return errA == nil && errB == nil && x < y
}

// RemoveNode tells that a node is gone; one of the same name that came since is not meant.
func (s *Set) RemoveNode(name string, uid types.UID) {
	n := s.nodes[name]
	if n == nil || n.obj == nil || n.obj.UID != uid {
		return
	}
	s.recount(n, uncounted)
	s.dropTasks(n, func(*task) bool { return true }, false)
	s.deadlines.remove(n)
	s.waiting.remove(n)
	delete(s.tainted, n)
	// What is in flight, or dirty, ends with the old record.
	delete(s.nodes, name)
	n.obj = nil
	if !n.renewed.IsZero() {
		s.node(name).renewed = n.renewed
	}
}

// Renewed tells the renewTime of a node's lease. Only a later one than before is a sign of life, whatever the
// clock of the node says.
func (s *Set) Renewed(name string, at, now time.Time) {
	n := s.node(name)
	if !at.After(n.renewed) {
		return
	}
	n.renewed, n.seen = at, now
	// The deadline stays in the heap where it is, and is moved when it comes up. A node that was late has none.
	if n.obj != nil && n.atDeadline == 0 {
		s.touch(n)
	}
}

// RemoveLease tells that a node's lease is gone. That alone is not a sign of anything.
func (s *Set) RemoveLease(name string) {
	n := s.nodes[name]
	if n == nil {
		return
	}
	n.renewed = time.Time{}
	if n.obj == nil {
		delete(s.nodes, name)
	}
}

// Written reports that a Status or Tainting was written, and what the node has become by it.
func (s *Set) Written(obj *corev1.Node, now time.Time) {
	n := s.nodes[obj.Name]
	if n == nil || n.obj == nil || n.obj.UID != obj.UID {
		return
	}
	n.writing = false
	s.SetNode(obj, now)
	s.touch(n) // the watch may have brought a later version before
}

// Failed reports that a Status or Tainting was not written. It is decided anew when the node changes, or after a
// back-off.
func (s *Set) Failed(name string, uid types.UID, now time.Time) {
	n := s.nodes[name]
	if n == nil || n.obj == nil || n.obj.UID != uid {
		return
	}
	n.writing = false
	n.failures = min(n.failures+1, 7)
	n.retryAt = now.Add(backoff(n.failures))
	s.touch(n)
}

// backoff is 200 ms after the first failure, and doubles to 12.8 s.
func backoff(failures uint8) time.Duration { return 100 * time.Millisecond << failures }
