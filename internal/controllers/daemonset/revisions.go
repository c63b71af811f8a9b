package daemonset

import (
	"bytes"
	"cmp"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	machine "github.com/everynode/everynode/internal/decide/daemonset"
)

// revisionIndex holds the ControllerRevisions of all DaemonSets by owner, and those without one by namespace. It
// is fed by the watch and by our own writes, whichever is newer.
type revisionIndex struct {
	byOwner     map[types.UID]map[string]*controllerRevision
	byNamespace map[string]map[string]*controllerRevision // without a controller
}

func newRevisionIndex() revisionIndex {
	return revisionIndex{
		byOwner:     map[types.UID]map[string]*controllerRevision{},
		byNamespace: map[string]map[string]*controllerRevision{},
	}
}

// set enters a revision, unless a newer version of it is known.
func (x *revisionIndex) set(r *controllerRevision) {
	o := ownerOf(r)
	if o.foreign {
		x.remove(r)
		return
	}
	if o.uid == "" {
		if x.byNamespace[r.Namespace] == nil {
			x.byNamespace[r.Namespace] = map[string]*controllerRevision{}
		}
		x.byNamespace[r.Namespace][r.Name] = r
		return
	}
	if orphan := x.byNamespace[r.Namespace][r.Name]; orphan != nil && orphan.UID == r.UID {
		delete(x.byNamespace[r.Namespace], r.Name)
	}
	if x.byOwner[o.uid] == nil {
		x.byOwner[o.uid] = map[string]*controllerRevision{}
	}
	if known := x.byOwner[o.uid][r.Name]; known != nil && known.UID == r.UID {
		if order, err := resourceversion.CompareResourceVersion(r.ResourceVersion, known.ResourceVersion); err == nil && order < 0 {
			return
		}
	}
	x.byOwner[o.uid][r.Name] = r
}

func (x *revisionIndex) remove(r *controllerRevision) {
	if o := ownerOf(r); o.uid != "" {
		if known := x.byOwner[o.uid][r.Name]; known != nil && known.UID == r.UID {
			delete(x.byOwner[o.uid], r.Name)
		}
		if len(x.byOwner[o.uid]) == 0 {
			delete(x.byOwner, o.uid)
		}
	}
	delete(x.byNamespace[r.Namespace], r.Name)
}

// count is how many revisions a DaemonSet owns.
func (x *revisionIndex) count(uid types.UID) int { return len(x.byOwner[uid]) }

// owned returns a DaemonSet's revisions that are not being deleted, sorted by name.
func (x *revisionIndex) owned(uid types.UID) []*controllerRevision {
	return sorted(x.byOwner[uid], func(r *controllerRevision) bool { return r.DeletionTimestamp == nil })
}

// orphansOf returns the revisions that the DaemonSet should adopt.
func (x *revisionIndex) orphansOf(ds *daemonSet) []*controllerRevision {
	selector, err := metav1.LabelSelectorAsSelector(ds.Spec.Selector)
	if err != nil || selector.Empty() {
		return nil
	}
	return sorted(x.byNamespace[ds.Namespace], func(r *controllerRevision) bool {
		return r.DeletionTimestamp == nil && selector.Matches(labels.Set(r.Labels))
	})
}

func sorted(m map[string]*controllerRevision, keep func(*controllerRevision) bool) []*controllerRevision {
	var rs []*controllerRevision
	for _, r := range m {
		if keep(r) {
			rs = append(rs, r)
		}
	}
	slices.SortFunc(rs, func(a, b *controllerRevision) int { return cmp.Compare(a.Name, b.Name) })
	return rs
}

// setRevision and removeRevision take what the watch shows, and look after the DaemonSet that it concerns.
func (c *Controller) setRevision(r *controllerRevision) {
	c.revisions.set(r)
	c.revisionChanged(r)
}

func (c *Controller) removeRevision(r *controllerRevision) {
	c.revisions.remove(r)
	c.revisionChanged(r)
}

// revisionChanged has the history looked at if the template's revision may be another now. One that somebody makes
// beside it is left alone until the template changes, as upstream leaves it: it is somebody's, who may be at work.
func (c *Controller) revisionChanged(r *controllerRevision) {
	o := ownerOf(r)
	if d := c.sets[o.uid]; d != nil && !c.knowsRevision(d) {
		c.syncHistory(d)
	}
	if o == (owner{}) {
		for _, d := range c.namespaces[r.Namespace] {
			c.syncHistory(d)
		}
	}
}

// knowsRevision says whether the revision that the machine goes by is of the template as it is, and stored.
func (c *Controller) knowsRevision(d *daemon) bool {
	return !d.history.running && d.generation == d.ds.Generation &&
		slices.ContainsFunc(c.revisions.owned(d.ds.UID), func(r *controllerRevision) bool {
			return machine.HashOf(r) == d.revision && bytes.Equal(r.Data.Raw, d.history.data)
		})
}
