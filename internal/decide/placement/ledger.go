package placement

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Ledger keeps what every node has left. Two kinds of entries take room: pods that are bound to the node, and
// promises, which are our own writes that no watch has shown yet. A pod's entry replaces a promise of
// the same name, so nothing is counted twice.
//
// Every method costs the same whatever the number of nodes. A Ledger is not safe for concurrent use.
type Ledger struct {
	accounts map[string]*account
	entries  map[string]entry // by pod key

	repellers repellers
	freed     uint64
}

// account is one node. It may exist before its node does: pods can be seen first.
type account struct {
	name  string
	node  *Node // nil: no such node (yet)
	used  Resources
	pods  int64
	ports map[Port][]string // the keys of the pods that asked for it, in that order: the first holds it
	// promised are the entries that no watch has shown: few.
	promised []promise
}

type entry struct {
	account *account
	demand  *Demand
}

type promise struct {
	key    string
	demand *Demand
}

func (e entry) promised(key string) bool {
	return slices.ContainsFunc(e.account.promised, func(p promise) bool { return p.key == key })
}

// NewLedger returns an empty ledger.
func NewLedger() *Ledger {
	return &Ledger{accounts: map[string]*account{}, entries: map[string]entry{}, repellers: newRepellers()}
}

// PodKey is the key under which a pod is entered: namespace/name.
func PodKey(namespace, name string) string { return namespace + "/" + name }

// SetNode enters a node, or its new size.
func (l *Ledger) SetNode(n *Node) { l.account(n.Name).node = n }

// RemoveNode forgets a node; its pods stay entered until they are removed.
func (l *Ledger) RemoveNode(name string) {
	if a := l.accounts[name]; a != nil {
		a.node = nil
		l.drop(a)
	}
}

// SetPod enters what is known of a pod: it takes room while it is bound and not over. Unbound pods take none,
// unless they are promised some.
func (l *Ledger) SetPod(p *corev1.Pod) {
	key := PodKey(p.Namespace, p.Name)
	e, known := l.entries[key]
	switch over := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed; {
	case over:
		l.Remove(key)
		return
	case p.Spec.NodeName == "":
		if known && !e.promised(key) {
			l.Remove(key)
		}
		return
	}
	if known && e.account == l.accounts[p.Spec.NodeName] && !resized(p) {
		if e.promised(key) {
			e.account.keep(key)
			l.repellers.set(key, p)
		}
		return // nothing that it takes has changed: the spec's requests are immutable
	}
	l.enter(key, p.Spec.NodeName, DemandOf(&p.Spec))
	l.repellers.set(key, p)
}

// resized says whether a running pod's requests may have changed in place.
func resized(p *corev1.Pod) bool { return p.Generation > 1 }

// Reserve promises room to a pod that is about to be created or bound; it replaces the pod's entry.
func (l *Ledger) Reserve(key, node string, d *Demand) {
	a := l.enter(key, node, d)
	a.promised = append(a.promised, promise{key, d})
}

// Release takes a promise back. Of a pod that has been seen bound meanwhile the entry stays.
func (l *Ledger) Release(key string) {
	if e, ok := l.entries[key]; ok && e.promised(key) {
		l.Remove(key)
	}
}

// Outstanding adds up the promises on a node that have not become pods which the asker counts already.
func (l *Ledger) Outstanding(node string, counted func(key string) bool) (d Demand, pods int64) {
	a := l.accounts[node]
	if a == nil {
		return d, 0
	}
	for _, p := range a.promised {
		if !counted(p.key) {
			d.add(&p.demand.Resources, 1)
			d.Ports = append(d.Ports, p.demand.Ports...)
			pods++
		}
	}
	return d, pods
}

// Knows says whether a node of that name has been entered.
func (l *Ledger) Knows(node string) bool {
	a := l.accounts[node]
	return a != nil && a.node != nil
}

// Freed counts how often an entry has been taken out: whoever was refused may try again when it has changed.
func (l *Ledger) Freed() uint64 { return l.freed }

// enter makes an entry, or replaces it.
func (l *Ledger) enter(key, node string, d *Demand) *account {
	l.Remove(key)
	a := l.account(node)
	l.entries[key] = entry{account: a, demand: d}
	a.used.add(&d.Resources, 1)
	a.pods++
	for _, p := range d.Ports {
		if a.ports == nil {
			a.ports = map[Port][]string{}
		}
		a.ports[p] = append(a.ports[p], key)
	}
	return a
}

// Remove takes a pod's or a promise's entry out. Unknown keys are ignored.
func (l *Ledger) Remove(key string) {
	e, ok := l.entries[key]
	if !ok {
		return
	}
	delete(l.entries, key)
	l.freed++
	l.repellers.remove(key)
	e.account.keep(key)
	e.account.used.add(&e.demand.Resources, -1)
	e.account.pods--
	for _, p := range e.demand.Ports {
		keys := e.account.ports[p]
		if keys = slices.DeleteFunc(keys, func(k string) bool { return k == key }); len(keys) == 0 {
			delete(e.account.ports, p)
		} else {
			e.account.ports[p] = keys
		}
	}
	l.drop(e.account)
}

// Fits says whether a pod with the demand has room on the node. Unknown nodes have none.
func (l *Ledger) Fits(node string, d *Demand) bool {
	a := l.accounts[node]
	if a == nil || a.node == nil || a.pods+1 > a.node.MaxPods {
		return false
	}
	for name, n := range d.Other {
		if n > a.node.Allocatable.Other[name]-a.used.Other[name] {
			return false
		}
	}
	have := &a.node.Allocatable
	return !exceeds(d.MilliCPU, have.MilliCPU-a.used.MilliCPU) && !exceeds(d.Memory, have.Memory-a.used.Memory) &&
		!exceeds(d.EphemeralStorage, have.EphemeralStorage-a.used.EphemeralStorage) && len(a.held(d.Ports)) == 0
}

// exceeds is false for a demand of nothing, even on an overcommitted node.
func exceeds(asked, free int64) bool { return asked > 0 && asked > free }

// Explain is Fits with every reason why not.
func (l *Ledger) Explain(node string, d *Demand) []Reason {
	a := l.accounts[node]
	if a == nil || a.node == nil {
		return []Reason{{Rule: PodCount, Wants: "a node", Has: "gone"}}
	}
	return a.explain(d)
}

// TooSmall says what a pod asks for beyond all that the node has, even without any other pod.
func (l *Ledger) TooSmall(node string, d *Demand) []Reason {
	a := l.accounts[node]
	if a == nil || a.node == nil {
		return nil
	}
	return (&account{node: a.node}).explain(d)
}

// explain returns every reason why the node has no room for one more pod.
func (a *account) explain(d *Demand) []Reason {
	var reasons []Reason
	if a.pods+1 > a.node.MaxPods {
		reasons = append(reasons, Reason{
			Rule: PodCount, Wants: "room for one more pod",
			Has: fmt.Sprintf("%d of %d pods", a.pods, a.node.MaxPods),
		})
	}
	short := func(name corev1.ResourceName, asked, free int64) {
		if exceeds(asked, free) {
			reasons = append(reasons, lacks(shortage(name, asked, free)))
		}
	}
	have := &a.node.Allocatable
	short(corev1.ResourceCPU, d.MilliCPU, have.MilliCPU-a.used.MilliCPU)
	short(corev1.ResourceMemory, d.Memory, have.Memory-a.used.Memory)
	short(corev1.ResourceEphemeralStorage, d.EphemeralStorage, have.EphemeralStorage-a.used.EphemeralStorage)
	for _, name := range slices.Sorted(maps.Keys(d.Other)) {
		short(name, d.Other[name], have.Other[name]-a.used.Other[name])
	}
	return append(reasons, a.held(d.Ports)...)
}

func lacks(s *Shortage) Reason {
	return Reason{
		Rule: Resource, Shortage: s,
		Wants: fmt.Sprintf("%s short by %s: %s asked", s.Resource, s.Short.String(), s.Asked.String()),
		Has:   s.Free.String() + " free",
	}
}

// held returns a reason for every port that another pod holds.
func (a *account) held(ports []Port) []Reason {
	if len(ports) == 0 || len(a.ports) == 0 {
		return nil
	}
	var reasons []Reason
	for _, p := range ports {
		if by := a.holder(p); by != "" {
			reasons = append(reasons, Reason{Rule: HostPort, Wants: p.String(), Port: &p, HeldBy: by, Has: "the port held by " + by})
		}
	}
	return reasons
}

// holder returns the key of the pod that holds a port; the smallest, if several addresses clash.
func (a *account) holder(p Port) string {
	if keys := a.ports[p]; len(keys) > 0 {
		return keys[0]
	}
	var by string
	for q, keys := range a.ports {
		if q.clash(p) && (by == "" || keys[0] < by) {
			by = keys[0]
		}
	}
	return by
}

// keep ends a promise: it has been kept, or is void.
func (a *account) keep(key string) {
	if a.promised = slices.DeleteFunc(a.promised, func(p promise) bool { return p.key == key }); len(a.promised) == 0 {
		a.promised = nil
	}
}

// account finds or opens a node's account.
func (l *Ledger) account(name string) *account {
	a := l.accounts[name]
	if a == nil {
		a = &account{name: name}
		l.accounts[name] = a
	}
	return a
}

// drop closes an account that neither a node nor a pod needs.
func (l *Ledger) drop(a *account) {
	if a.node == nil && a.pods == 0 {
		delete(l.accounts, a.name)
	}
}
