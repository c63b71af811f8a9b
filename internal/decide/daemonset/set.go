package daemonset

import (
	"time"

	"github.com/everynode/everynode/internal/decide/placement"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// Set decides for one DaemonSet. It holds one slot a node, each O(1) to refresh, so the cost of an event does
// not depend on the number of nodes. A Set is not safe for concurrent use, nor is the ledger that several share.
type Set struct {
	spec   *spec
	ledger *placement.Ledger // nil: every node has room
	unseen time.Duration

	slots    map[string]*slot   // by node name
	pods     map[string]*pod    // by pod name; ours, and orphans to adopt
	promised map[string]*slot   // by pod name: creates not seen yet
	claims   map[string]*claim  // by pod name
	buried   map[types.UID]bool // pods known to be gone that the watch may still bring up
	labelled labelled

	changed []*slot // facts changed: to be counted anew
	timers  heap[*slot]
	todo    heap[*slot]            // counted, to be decided
	missing heap[*slot]            // a pod is to be created
	waves   [waveCount]heap[*slot] // what a rolling update may take next
	unowned heap[*claim]

	repelled repelled
	counts   counts
	slow     slowStart
	status   statusPace
}

// Options of a Set. The zero value is good for a preview.
type Options struct {
	// Ledger is asked for room before a pod is created bound, and told; nil means that there is always room.
	Ledger *placement.Ledger
	// UnseenAfter is how long one of our writes may stay unseen before a Check is asked for. Default 10s.
	UnseenAfter time.Duration
}

// New makes the set of a DaemonSet whose current template has the given revision hash.
func New(ds *appsv1.DaemonSet, revision string, o Options) *Set {
	s := &Set{
		ledger:   o.Ledger,
		unseen:   o.UnseenAfter,
		slots:    map[string]*slot{},
		pods:     map[string]*pod{},
		promised: map[string]*slot{},
		claims:   map[string]*claim{},
		buried:   map[types.UID]bool{},
		labelled: labelled{},
	}
	if s.unseen == 0 {
		s.unseen = 10 * time.Second
	}
	byName := func(a, b *slot) bool { return a.name < b.name }
	s.timers = heap[*slot]{place: func(sl *slot) *int32 { return &sl.timerAt }, less: func(a, b *slot) bool {
		return a.due.Before(b.due) || (a.due.Equal(b.due) && a.name < b.name)
	}}
	s.todo = heap[*slot]{place: func(sl *slot) *int32 { return &sl.todoAt }, less: byName}
	s.missing = heap[*slot]{place: func(sl *slot) *int32 { return &sl.missingAt }, less: byName}
	for w := range s.waves {
		s.waves[w] = heap[*slot]{place: func(sl *slot) *int32 { return &sl.candidate }, less: byName}
	}
	s.unowned = heap[*claim]{place: func(c *claim) *int32 { return &c.at }, less: claimBefore}
	s.SetSpec(ds, revision)
	return s
}

// SetSpec tells the DaemonSet as it is now, and the revision hash of its template. It costs O(nodes) when the
// spec or the revision changed, and nothing otherwise. ds is only read, and must not be changed later. The
// status in ds is taken for what is stored: never go back to an older object.
func (s *Set) SetSpec(ds *appsv1.DaemonSet, revision string) {
	s.status.stored = statusOf(&ds.Status)
	if s.spec.same(ds, revision) {
		return
	}
	if s.spec != nil && s.spec.revision != revision {
		for _, sl := range s.slots {
			sl.failures, sl.retries, sl.retryAt = backoff{}, 0, time.Time{}
		}
	}
	s.spec = readSpec(ds, revision)
	for _, sl := range s.slots {
		s.judge(sl)
		s.change(sl)
	}
}

// SetNode tells that the node is there and what it is like. The value may be shared by many sets.
func (s *Set) SetNode(n *placement.Node) {
	sl := s.slot(n.Name)
	if sl.node != nil && (sl.node == n || sl.node.SameRules(n)) {
		sl.node = n
		return
	}
	sl.node = n
	s.judge(sl)
	s.change(sl)
}

// RemoveNode tells that there is no such node any more.
func (s *Set) RemoveNode(name string) {
	sl := s.slots[name]
	if sl == nil {
		return
	}
	sl.node = nil
	s.judge(sl)
	s.change(sl)
}

func (s *Set) judge(sl *slot) {
	sl.outcome = placement.Out
	if sl.node != nil {
		sl.outcome = s.spec.placement.Judge(sl.node)
	}
}

// SetPod tells a pod of the DaemonSet's namespace: one of its own, or any that has no controller. Others are
// ignored, and forgotten if they were known. p is only read.
func (s *Set) SetPod(p *Pod) {
	if s.buried[p.UID] {
		return
	}
	role := s.roleOf(p)
	known := s.pods[p.Name]
	if known != nil && (known.uid != p.UID || known.slot.name != p.Node || role == stranger) {
		s.detach(known)
		known = nil
	}
	s.setClaim(p, role)
	if role == stranger || role == released || p.Node == "" {
		if known != nil {
			s.detach(known)
		}
		return
	}

	if known == nil {
		known = &pod{name: p.Name, uid: p.UID, slot: s.slot(p.Node)}
		s.attach(known)
	}
	known.facts, known.orphan = p.facts, role == orphan
	s.label(known, p.Labels)
	if sl := s.promised[p.Name]; sl != nil {
		sl.promise.seen = p.UID
		s.keepPromise(sl)
	}
	s.change(known.slot)
}

// RemovePod tells that the pod is gone. With a UID, a later pod of the same name is left alone.
func (s *Set) RemovePod(name string, uid types.UID) {
	delete(s.buried, uid)
	s.dropClaim(name, uid)
	if sl := s.promised[name]; sl != nil {
		sl.promise.seen = uid
		s.keepPromise(sl)
	}
	if p := s.pods[name]; p != nil && (uid == "" || p.uid == uid) {
		s.detach(p)
	}
}

// role is what a pod is to the set.
type role int

const (
	stranger role = iota // nothing: another controller's, or an orphan that the selector does not match
	member               // ours
	orphan               // to be adopted
	released             // ours by owner, but the selector no longer matches: to be released
)

func (s *Set) roleOf(p *Pod) role {
	if p.Namespace != s.spec.namespace {
		return stranger
	}
	matches := s.spec.selector.Matches(p.Labels)
	switch {
	case !p.Controlled && matches && !p.terminating:
		return orphan
	case !p.Controlled || p.Controller != s.spec.uid:
		return stranger
	case !matches:
		return released
	default:
		return member
	}
}

func (s *Set) attach(p *pod) {
	s.pods[p.name] = p
	s.labelled.add("", 1)
	p.slot.hold(p)
	s.change(p.slot)
}

// label notes which revision the pod is of. All pods of a revision share one string.
func (s *Set) label(p *pod, of labels.Set) {
	if g := of[generationLabel]; p.generation != g {
		if p.generation = g; g == s.spec.templateGeneration {
			p.generation = s.spec.templateGeneration
		}
	}
	if r := of[revisionLabel]; p.revision != r {
		s.labelled.add(p.revision, -1)
		p.revision = s.labelled.add(r, 1)
	}
}

func (s *Set) detach(p *pod) {
	delete(s.pods, p.name)
	s.labelled.add(p.revision, -1)
	p.slot.drop(p)
	s.change(p.slot)
}

// slot finds or makes a node's slot.
func (s *Set) slot(name string) *slot {
	sl := s.slots[name]
	if sl == nil {
		sl = &slot{name: name}
		s.slots[name] = sl
	}
	return sl
}

// change notes that the slot's facts changed.
func (s *Set) change(sl *slot) {
	if !sl.changed {
		sl.changed = true
		s.changed = append(s.changed, sl)
	}
}

// wake asks for the slot to be looked at again at that time, or sooner.
func (s *Set) wake(sl *slot, at time.Time) {
	if sl.timerAt == 0 || at.Before(sl.due) {
		sl.due = at
		s.timers.put(sl)
	}
}

// HasRevision says whether any pod of the set, also one on its way out, carries the revision hash: such a
// revision must be kept.
func (s *Set) HasRevision(hash string) bool { return s.labelled[hash] != nil }

// labelled counts the pods that carry each revision hash.
type labelled map[string]*carried

type carried struct {
	hash string
	pods int
}

// add counts n more pods, and returns the hash in the memory that its pods share.
func (l labelled) add(hash string, n int) string {
	c := l[hash]
	if c == nil {
		c = &carried{hash: hash}
		l[hash] = c
	}
	if c.pods += n; c.pods == 0 {
		delete(l, hash)
	}
	return c.hash
}

// Pods returns how many pods the set knows of.
func (s *Set) Pods() int { return len(s.pods) }
