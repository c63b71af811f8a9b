package daemonset

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// awaitFresh waits until every informer has synced and shows all that was stored when Run began. It returns false
// when ctx ended before.
//
// A new leader must not act on less: the one before it may have made pods a moment ago. Informers alone do not
// promise this. Their first list may come from a server's cache (resourceVersion "0"), and a factory may have run
// long before the Lease was won. So each resource is listed with resourceVersion "", which the server answers with
// no less than what is stored.
//
// The version of that list is a mark: an informer that has reached it has seen everything. One that started after
// the mark was taken has, at once. One that has long been running may not know that it has, since nobody tells it
// of a newer version while nothing of its kind changes (but for a bookmark a minute); so it is compared, object by
// object, with the whole list.
func (c *Controller) awaitFresh(ctx context.Context) bool {
	for i := range c.watched {
		w := &c.watched[i]
		mark, err := w.listStored(ctx, false)
		if err != nil {
			return false
		}
		if !w.await(ctx, func() bool { return true }) {
			return false
		}
		if reached(w.informer.LastSyncResourceVersion(), mark.version) {
			continue
		}
		now, err := w.listStored(ctx, true)
		if err != nil {
			return false
		}
		if !w.await(ctx, func() bool {
			return reached(w.informer.LastSyncResourceVersion(), now.version) || now.shownBy(w.informer.GetStore())
		}) {
			return false
		}
	}
	return true
}

// await waits until the informer has synced and is as it should be, and returns false when ctx ended before.
func (w *watched) await(ctx context.Context, is func() bool) bool {
	err := wait.PollUntilContextCancel(ctx, 5*time.Millisecond, true, func(context.Context) (bool, error) {
		return w.informer.HasSynced() && is(), nil
	})
	return err == nil
}

// stored is what the server had of a resource, at a version.
type stored struct {
	version string
	objects map[string]string // key → version
}

// listStored reads the version and, if asked for, all objects. It tries until it works; its only error is that ctx
// ended.
func (w *watched) listStored(ctx context.Context, objects bool) (*stored, error) {
	var now *stored
	err := wait.PollUntilContextCancel(ctx, time.Second, true, func(ctx context.Context) (bool, error) {
		now = &stored{objects: map[string]string{}}
		err := w.readPages(ctx, now, objects)
		if err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "The DaemonSet controller cannot start yet; trying again", "resource", w.resource)
		}
		return err == nil, nil
	})
	return now, err
}

// readPages fills in now. All pages are of one version, that of the first.
func (w *watched) readPages(ctx context.Context, now *stored, objects bool) error {
	o := metav1.ListOptions{Limit: 500}
	if !objects {
		o.Limit = 1
	}
	for {
		page, err := w.list(ctx, o)
		if err != nil {
			return fmt.Errorf("list %s: %w", w.resource, err)
		}
		list, err := meta.ListAccessor(page)
		if err != nil {
			return fmt.Errorf("read a list of %s: %w", w.resource, err)
		}
		now.version = list.GetResourceVersion()
		if !objects {
			return nil
		}
		err = meta.EachListItem(page, func(o runtime.Object) error {
			m, err := meta.Accessor(o)
			if err == nil {
				now.objects[cache.MetaObjectToName(m).String()] = m.GetResourceVersion()
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("read a list of %s: %w", w.resource, err)
		}
		if o.Continue = list.GetContinue(); o.Continue == "" {
			return nil
		}
	}
}

// shownBy says whether the store has every object at its version or a newer one, and no object that had been
// deleted by then. An object that was deleted since looks missing; but then the informer reaches the mark by that.
func (s *stored) shownBy(store cache.Store) bool {
	shown := 0
	for _, o := range store.List() {
		m, err := meta.Accessor(o)
		if err != nil {
			return false
		}
		key := cache.MetaObjectToName(m).String()
		version, listed := s.objects[key]
		switch {
		case listed && reached(m.GetResourceVersion(), version):
			shown++
		case listed, !reached(m.GetResourceVersion(), s.version):
			return false
		}
	}
	return shown == len(s.objects)
}

// reached says whether version have is at least version want. A server that has no versions to compare (a fake)
// is taken at its word.
func reached(have, want string) bool {
	if _, err := resourceversion.CompareResourceVersion(want, want); err != nil {
		return true
	}
	order, err := resourceversion.CompareResourceVersion(have, want)
	return err == nil && order >= 0
}
