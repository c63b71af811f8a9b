package daemonset

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	machine "github.com/everynode/everynode/internal/decide/daemonset"
	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	appsclient "k8s.io/client-go/kubernetes/typed/apps/v1"
	"k8s.io/klog/v2"
)

type controllerRevision = appsv1.ControllerRevision

// historySync keeps the revisions of one DaemonSet in order: at most one such work at a time.
type historySync struct {
	running bool
	again   bool // look again when the running one is done
	retries int
	data    []byte // of the template as it was last looked at
}

// syncHistory finds the revision of the DaemonSet's template, storing it if it is new. As long as nothing has to
// be written, that takes no time at all.
func (c *Controller) syncHistory(d *daemon) {
	if d.history.running {
		d.history.again = true
		return
	}
	if d.ds.DeletionTimestamp != nil || c.sets[d.ds.UID] != d || !c.acting {
		return
	}
	data, err := machine.RevisionData(d.ds)
	if err != nil {
		klog.ErrorS(err, "DaemonSet left alone") // a template that the API stored always reads
		return
	}
	d.history.data = data
	if orphans := c.revisions.orphansOf(d.ds); len(orphans) > 0 {
		c.writeHistory(d, func(w *historyWriter) (*controllerRevision, error) { return nil, w.adopt(orphans) })
		return
	}
	h := machine.PlanHistory(d.ds, data, c.revisions.owned(d.ds.UID))
	if h.Current == nil {
		c.writeHistory(d, func(w *historyWriter) (*controllerRevision, error) { return w.create(data, h.Create) })
		return
	}
	if hash := machine.HashOf(h.Current); d.revision != hash || d.generation != d.ds.Generation {
		c.setTemplateRevision(d, hash)
	}
	if len(h.Duplicates) > 0 || h.Current.Revision != h.Number {
		carriers := map[string][]string{}
		for _, r := range h.Duplicates {
			carriers[r.Name] = d.set.PodsOf(machine.HashOf(r))
		}
		c.writeHistory(d, func(w *historyWriter) (*controllerRevision, error) { return w.tidy(h, carriers) })
	}
}

// writeHistory runs the writes beside the loop.
func (c *Controller) writeHistory(d *daemon, write func(*historyWriter) (*controllerRevision, error)) {
	d.history.running, d.history.again = true, false
	ds := d.ds
	ctx := c.writeContext(time.Now())
	c.after(func() func() {
		w := &historyWriter{c: c, ctx: ctx, ds: ds}
		current, err := write(w)
		return func() { c.historyDone(d, ds, w, current, err) }
	})
}

// historyDone takes what was stored, without waiting for the watch, and goes on. current is the revision of ds,
// nil if that has to be found out again.
func (c *Controller) historyDone(d *daemon, ds *daemonSet, w *historyWriter, current *controllerRevision, err error) {
	d.history.running = false
	for _, r := range w.stored {
		c.revisions.set(r)
	}
	for _, r := range w.gone {
		c.revisions.remove(r)
	}
	if err != nil && c.ctx.Err() == nil {
		klog.ErrorS(err, "Could not store the history of a DaemonSet; trying again", "daemonset", klog.KObj(ds))
		delay := min(20*time.Millisecond<<min(d.history.retries, 20), 30*time.Second)
		d.history.retries++
		inbox := c.inbox
		time.AfterFunc(delay, func() { inbox.put(func() { c.syncHistory(d) }) })
		return
	}
	d.history.retries = 0
	if current != nil && c.sets[ds.UID] == d && d.ds.Generation == ds.Generation {
		c.setTemplateRevision(d, machine.HashOf(current))
	}
	if current == nil || d.history.again || d.ds.Generation != ds.Generation {
		c.syncHistory(d)
	}
}

// prune deletes the oldest revisions above the limit that no pod carries.
func (c *Controller) prune(d *daemon) {
	limit := 10
	if l := d.ds.Spec.RevisionHistoryLimit; l != nil {
		limit = int(*l)
	}
	if d.history.running || d.generation != d.ds.Generation || c.revisions.count(d.ds.UID) <= limit+1 {
		return
	}
	h := machine.PlanHistory(d.ds, d.history.data, c.revisions.owned(d.ds.UID))
	pruned := h.Prune(limit, d.set.HasRevision)
	if len(pruned) == 0 {
		return
	}
	c.writeHistory(d, func(w *historyWriter) (*controllerRevision, error) {
		for _, r := range pruned {
			if err := w.delete(r); err != nil {
				return nil, err
			}
		}
		return h.Current, nil
	})
}

// historyWriter does one DaemonSet's history writes, and notes what changed.
type historyWriter struct {
	c            *Controller
	ctx          context.Context
	ds           *daemonSet
	stored, gone []*controllerRevision
}

// tidy removes revisions that repeat the current one, and gives that the highest number.
func (w *historyWriter) tidy(h machine.History, carriers map[string][]string) (*controllerRevision, error) {
	for _, r := range h.Duplicates {
		if err := w.merge(r, h.Current, carriers[r.Name]); err != nil {
			return nil, err
		}
	}
	if h.Current.Revision == h.Number {
		return h.Current, nil
	}
	renumbered := h.Current.DeepCopy()
	renumbered.Revision = h.Number
	r, err := w.revisions().Update(w.ctx, renumbered, metav1.UpdateOptions{})
	if err != nil {
		return nil, fmt.Errorf("renumber ControllerRevision %s: %w", renumbered.Name, err)
	}
	w.stored = append(w.stored, r)
	return r, nil
}

// create stores a revision. One that is there already and says the same is as good.
func (w *historyWriter) create(data []byte, r *controllerRevision) (*controllerRevision, error) {
	created, err := w.revisions().Create(w.ctx, r, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		created, err = w.revisions().Get(w.ctx, r.Name, metav1.GetOptions{})
		if err == nil && !bytes.Equal(created.Data.Raw, data) {
			return nil, w.collide(r.Name)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("store ControllerRevision %s: %w", r.Name, err)
	}
	w.stored = append(w.stored, created)
	return created, nil
}

// collide notes in the DaemonSet's status that the hash is taken by another template, so that the next hash
// differs.
func (w *historyWriter) collide(name string) error {
	live, err := w.c.o.Client.AppsV1().DaemonSets(w.ds.Namespace).Get(w.ctx, w.ds.Name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read DaemonSet %s to resolve a hash collision: %w", w.ds.Name, err)
	}
	was, is := w.ds.Status.CollisionCount, live.Status.CollisionCount
	if (was == nil) != (is == nil) || (was != nil && *was != *is) {
		return errors.New("the collision count has changed meanwhile")
	}
	count := int32(1)
	if is != nil {
		count = *is + 1
	}
	live.Status.CollisionCount = &count
	updated, err := w.c.o.Writer.UpdateDaemonSetStatus(w.ctx, live)
	if err != nil {
		return fmt.Errorf("count a hash collision of DaemonSet %s: %w", w.ds.Name, err)
	}
	w.c.inbox.put(func() { w.c.setDaemonSet(updated) })
	return fmt.Errorf("the name %s holds another template; using another hash", name)
}

// merge makes pods of a revision that repeats the current one count as current, and deletes it.
func (w *historyWriter) merge(r, current *controllerRevision, pods []string) error {
	patch := mustMarshal(map[string]any{"metadata": map[string]any{
		"labels": map[string]string{appsv1.DefaultDaemonSetUniqueLabelKey: machine.HashOf(current)},
	}})
	for _, name := range pods {
		_, err := w.c.o.Client.CoreV1().Pods(w.ds.Namespace).Patch(w.ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("relabel pod %s to revision %s: %w", name, current.Name, err)
		}
	}
	return w.delete(r)
}

// adopt makes the DaemonSet the owner of revisions that match it and have none.
func (w *historyWriter) adopt(orphans []*controllerRevision) error {
	if err := w.c.recheck(w.ctx, w.ds); err != nil {
		return err
	}
	for _, r := range orphans {
		adopted, err := w.revisions().Patch(w.ctx, r.Name, types.StrategicMergePatchType, ownerPatch(w.ds, r.UID), metav1.PatchOptions{})
		switch {
		case apierrors.IsNotFound(err):
			w.gone = append(w.gone, r)
		case err != nil:
			return fmt.Errorf("adopt ControllerRevision %s: %w", r.Name, err)
		default:
			w.stored = append(w.stored, adopted)
		}
	}
	return nil
}

func (w *historyWriter) delete(r *controllerRevision) error {
	if err := w.revisions().Delete(w.ctx, r.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete ControllerRevision %s: %w", r.Name, err)
	}
	w.gone = append(w.gone, r)
	return nil
}

func (w *historyWriter) revisions() appsclient.ControllerRevisionInterface {
	return w.c.o.Client.AppsV1().ControllerRevisions(w.ds.Namespace)
}
