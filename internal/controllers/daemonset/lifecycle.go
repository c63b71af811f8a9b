package daemonset

import (
	machine "github.com/everynode/everynode/internal/decide/daemonset"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
)

// setDaemonSet takes a version of a DaemonSet, from the watch or as the answer to a write, unless a newer one is
// known.
func (c *Controller) setDaemonSet(ds *daemonSet) {
	d := c.sets[ds.UID]
	if d == nil {
		d = &daemon{uid: ds.UID, ds: ds}
		c.sets[ds.UID] = d
		if c.namespaces[ds.Namespace] == nil {
			c.namespaces[ds.Namespace] = map[types.UID]*daemon{}
		}
		c.namespaces[ds.Namespace][ds.UID] = d
	} else if older(ds, d.ds) {
		return
	}
	d.ds = ds
	switch {
	case d.set != nil && (d.generation == ds.Generation || ds.DeletionTimestamp != nil):
		// The template's revision is known, or no longer matters.
		d.set.SetSpec(ds, d.revision)
		c.enqueue(d)
	case ds.DeletionTimestamp == nil:
		c.syncHistory(d)
	}
}

// removeDaemonSet forgets a DaemonSet. Its pods are the garbage collector's, and stay parked until they go or
// lose their owner.
func (c *Controller) removeDaemonSet(ds *daemonSet) {
	d := c.sets[ds.UID]
	if d == nil {
		return
	}
	delete(c.sets, ds.UID)
	if delete(c.namespaces[ds.Namespace], ds.UID); len(c.namespaces[ds.Namespace]) == 0 {
		delete(c.namespaces, ds.Namespace)
	}
}

// setTemplateRevision tells the machine which revision the DaemonSet's template is; the first time it makes the
// machine.
func (c *Controller) setTemplateRevision(d *daemon, hash string) {
	changed := d.revision != hash
	d.revision, d.generation = hash, d.ds.Generation
	if d.set == nil {
		d.set = machine.New(d.ds, hash, machine.Options{Ledger: c.ledger, UnseenAfter: c.o.UnseenAfter})
		c.tellAll(d)
	} else {
		d.set.SetSpec(d.ds, hash)
	}
	if changed {
		c.noteContradiction(d)
	}
	c.enqueue(d)
}

// older says whether a is an older version than b. Versions that cannot be compared count as newer.
func older(a, b *daemonSet) bool {
	order, err := resourceversion.CompareResourceVersion(a.ResourceVersion, b.ResourceVersion)
	return err == nil && order < 0
}
