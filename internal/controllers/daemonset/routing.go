package daemonset

import (
	"strings"

	machine "github.com/everynode/everynode/internal/decide/daemonset"
	"github.com/everynode/everynode/internal/decide/placement"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// setNode tells every DaemonSet of a node, unless nothing that placement looks at has changed.
func (c *Controller) setNode(known *placement.Node, seen bool, n *corev1.Node) *placement.Node {
	node := placement.NodeOf(n)
	if seen && known.Same(node) {
		return known
	}
	c.ledger.SetNode(node)
	for _, d := range c.sets {
		if d.set != nil {
			d.set.SetNode(node)
			c.enqueue(d)
		}
	}
	return node
}

func (c *Controller) removeNode(name string) {
	c.ledger.RemoveNode(name)
	for _, d := range c.sets {
		if d.set != nil {
			d.set.RemoveNode(name)
			c.enqueue(d)
		}
	}
}

// podRef is what is kept of any pod of the cluster, beside its key, so that it can be found again where setPod took
// it.
type podRef struct {
	uid   types.UID
	owner owner
}

// setPod routes a pod to the DaemonSet that owns it, or, without a controller, to all that may adopt it.
func (c *Controller) setPod(before podRef, seen bool, p *corev1.Pod) podRef {
	now := podRef{uid: p.UID, owner: c.shared(ownerOf(p))}
	if seen && before != now {
		c.unroute(keyOf(p), before)
	}
	c.ledger.SetPod(p)
	switch {
	case now.owner.foreign:
	case now.owner.uid == "":
		fact := machine.PodOf(p)
		keep(c.orphans, p.Namespace, fact)
		for _, d := range c.namespaces[p.Namespace] {
			c.tell(d, fact)
		}
	default:
		fact := machine.PodOf(p)
		if d := c.sets[now.owner.uid]; d == nil || d.set == nil {
			keep(c.parked, now.owner.uid, fact)
		} else {
			c.tell(d, fact)
		}
	}
	if seen && before == now {
		return before // in memory that is shared
	}
	return now
}

// shared is the owner with its UID in the one place where that is kept anyway.
func (c *Controller) shared(o owner) owner {
	if d := c.sets[o.uid]; d != nil {
		o.uid = d.uid
	}
	return o
}

func (c *Controller) removePod(key types.NamespacedName, last podRef) {
	c.ledger.Remove(placement.PodKey(key.Namespace, key.Name))
	c.unroute(key, last)
}

// unroute takes a pod, as it was, back from where setPod took it.
func (c *Controller) unroute(key types.NamespacedName, last podRef) {
	forget := func(d *daemon) {
		if d != nil && d.set != nil {
			d.set.RemovePod(key.Name, last.uid)
			c.enqueue(d)
		}
	}
	switch {
	case last.owner.foreign:
	case last.owner.uid == "":
		drop(c.orphans, key.Namespace, key.Name)
		for _, d := range c.namespaces[key.Namespace] {
			forget(d)
		}
	default:
		drop(c.parked, last.owner.uid, key.Name)
		forget(c.sets[last.owner.uid])
	}
}

func (c *Controller) tell(d *daemon, p *machine.Pod) {
	if d.set != nil {
		d.set.SetPod(p)
		c.enqueue(d)
	}
}

// tellAll gives a new machine everything that is known.
func (c *Controller) tellAll(d *daemon) {
	for _, n := range c.nodes {
		d.set.SetNode(n)
	}
	for _, p := range c.parked[d.ds.UID] {
		d.set.SetPod(p)
	}
	delete(c.parked, d.ds.UID)
	for _, p := range c.orphans[d.ds.Namespace] {
		d.set.SetPod(p)
	}
}

// owner is who controls a pod: a DaemonSet, something else, or, when it is zero, nobody.
type owner struct {
	uid     types.UID
	foreign bool
}

func ownerOf(o metav1.Object) owner {
	ref := metav1.GetControllerOfNoCopy(o)
	switch {
	case ref == nil:
		return owner{}
	case ref.Kind == machine.Kind.Kind && strings.HasPrefix(ref.APIVersion, machine.Kind.Group+"/"):
		return owner{uid: ref.UID}
	default:
		return owner{foreign: true}
	}
}

func keep[K comparable](m map[K]map[string]*machine.Pod, key K, p *machine.Pod) {
	if m[key] == nil {
		m[key] = map[string]*machine.Pod{}
	}
	m[key][p.Name] = p
}

func drop[K comparable](m map[K]map[string]*machine.Pod, key K, name string) {
	if delete(m[key], name); len(m[key]) == 0 {
		delete(m, key)
	}
}
