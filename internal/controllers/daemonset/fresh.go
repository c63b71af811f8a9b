package daemonset

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/klog/v2"
)

// awaitFresh waits until every informer has seen all that was stored when Run began.
//
// A new leader must not act on less: the one before it may have made pods a moment ago. Informers alone do not
// promise this. Their first list may come from a server's cache (resourceVersion "0"), and a factory may have
// run long before the Lease was won. So each resource is read once with resourceVersion "", which the server
// answers with no less than what is stored; the version that comes back is the mark that the informer's own
// version has to reach. Informers that start with the controller (with WatchList, or with a list that is as
// consistent) are there at once; others get there with the next event or bookmark.
//
// It returns false when ctx ended before.
func (c *Controller) awaitFresh(ctx context.Context) bool {
	apps, core := c.o.Client.AppsV1(), c.o.Client.CoreV1()
	one := metav1.ListOptions{Limit: 1}
	marks := map[string]func() (metav1.ListInterface, error){
		"daemonsets": func() (metav1.ListInterface, error) { return apps.DaemonSets("").List(ctx, one) },
		"controllerrevisions": func() (metav1.ListInterface, error) {
			return apps.ControllerRevisions("").List(ctx, one)
		},
		"nodes": func() (metav1.ListInterface, error) { return core.Nodes().List(ctx, one) },
		"pods":  func() (metav1.ListInterface, error) { return core.Pods("").List(ctx, one) },
	}
	// All marks are taken before any is waited for.
	want := map[string]string{}
	for _, w := range c.watched {
		err := wait.PollUntilContextCancel(ctx, time.Second, true, func(context.Context) (bool, error) {
			list, err := marks[w.resource]()
			if err != nil {
				klog.FromContext(ctx).Error(err, "Could not read the current version; trying again", "resource", w.resource)
				return false, nil
			}
			want[w.resource] = list.GetResourceVersion()
			return true, nil
		})
		if err != nil {
			return false
		}
	}
	for _, w := range c.watched {
		err := wait.PollUntilContextCancel(ctx, 5*time.Millisecond, true, func(context.Context) (bool, error) {
			return reached(w.informer.LastSyncResourceVersion(), want[w.resource]), nil
		})
		if err != nil {
			return false
		}
	}
	return true
}

// reached says whether version have is at least version want. A server that has no versions to compare (a fake)
// is taken at its word.
func reached(have, want string) bool {
	order, err := resourceversion.CompareResourceVersion(want, want)
	if err != nil || order != 0 {
		return true
	}
	order, err = resourceversion.CompareResourceVersion(have, want)
	return err == nil && order >= 0
}
