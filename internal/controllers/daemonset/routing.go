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
func (c *Controller) setNode(n *corev1.Node) {
	node := placement.NodeOf(n)
	if known := c.nodes[n.Name]; known != nil && known.Same(node) {
		return
	}
	c.nodes[n.Name] = node
	c.ledger.SetNode(node)
	for _, d := range c.sets {
		if d.set != nil {
			d.set.SetNode(node)
			c.enqueue(d)
		}
	}
}

func (c *Controller) removeNode(name string) {
	delete(c.nodes, name)
	c.ledger.RemoveNode(name)
	for _, d := range c.sets {
		if d.set != nil {
			d.set.RemoveNode(name)
			c.enqueue(d)
		}
	}
}

// setPod routes a pod to the DaemonSet that owns it, or, without a controller, to all that may adopt it.
func (c *Controller) setPod(before, p *corev1.Pod) {
	if before != nil && (before.UID != p.UID || ownerOf(before) != ownerOf(p)) {
		c.unroute(before)
	}
	c.ledger.SetPod(p)
	switch owner := ownerOf(p); {
	case owner.foreign:
	case owner.uid == "":
		keep(c.orphans, p.Namespace, p)
		for _, d := range c.namespaces[p.Namespace] {
			c.tell(d, p)
		}
	default:
		if d := c.sets[owner.uid]; d == nil || d.set == nil {
			keep(c.parked, owner.uid, p)
		} else {
			c.tell(d, p)
		}
	}
}

func (c *Controller) removePod(p *corev1.Pod) {
	c.ledger.Remove(placement.PodKey(p.Namespace, p.Name))
	c.unroute(p)
}

// unroute takes a pod, as it was, back from where setPod took it.
func (c *Controller) unroute(p *corev1.Pod) {
	forget := func(d *daemon) {
		if d != nil && d.set != nil {
			d.set.RemovePod(p.Name, p.UID)
			c.enqueue(d)
		}
	}
	switch owner := ownerOf(p); {
	case owner.foreign:
	case owner.uid == "":
		drop(c.orphans, p.Namespace, p.Name)
		for _, d := range c.namespaces[p.Namespace] {
			forget(d)
		}
	default:
		drop(c.parked, owner.uid, p.Name)
		forget(c.sets[owner.uid])
	}
}

func (c *Controller) tell(d *daemon, p *corev1.Pod) {
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

func keep[K comparable](m map[K]map[string]*corev1.Pod, key K, p *corev1.Pod) {
	if m[key] == nil {
		m[key] = map[string]*corev1.Pod{}
	}
	m[key][p.Name] = p
}

func drop[K comparable](m map[K]map[string]*corev1.Pod, key K, name string) {
	if delete(m[key], name); len(m[key]) == 0 {
		delete(m, key)
	}
}
