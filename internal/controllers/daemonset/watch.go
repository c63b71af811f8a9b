package daemonset

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"
)

type daemonSet = appsv1.DaemonSet

// watched is one informer and what its events do.
type watched struct {
	resource     string
	list         func(context.Context, metav1.ListOptions) (runtime.Object, error)
	informer     cache.SharedIndexInformer
	handler      cache.ResourceEventHandler
	registration cache.ResourceEventHandlerRegistration
}

// watch asks the factory for the informers, and says what their events do in this Run.
func (c *Controller) watch() []watched {
	apps, core := c.o.Informers.Apps().V1(), c.o.Informers.Core().V1()
	liveApps, liveCore := c.o.Client.AppsV1(), c.o.Client.CoreV1()
	return []watched{
		{resource: "daemonsets", informer: apps.DaemonSets().Informer(), list: lister(liveApps.DaemonSets("").List), handler: on(c,
			func(old, ds *appsv1.DaemonSet) {
				if old != nil && old.UID != ds.UID {
					c.removeDaemonSet(old)
				}
				c.setDaemonSet(ds)
			}, c.removeDaemonSet)},
		{resource: "controllerrevisions", informer: apps.ControllerRevisions().Informer(), list: lister(liveApps.ControllerRevisions("").List), handler: on(c,
			func(_, r *appsv1.ControllerRevision) { c.setRevision(r) }, c.removeRevision)},
		{resource: "nodes", informer: core.Nodes().Informer(), list: lister(liveCore.Nodes().List), handler: on(c,
			func(_, n *corev1.Node) { c.setNode(n) },
			func(n *corev1.Node) { c.removeNode(n.Name) })},
		{resource: "pods", informer: core.Pods().Informer(), list: lister(liveCore.Pods("").List), handler: on(c, c.setPod, c.removePod)},
	}
}

// lister makes one of a typed client's List functions.
func lister[L runtime.Object](list func(context.Context, metav1.ListOptions) (L, error)) func(context.Context, metav1.ListOptions) (runtime.Object, error) {
	return func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return list(ctx, o) }
}

// on makes a handler that has the loop call set for every new version of an object, with the one before it or
// nil, and remove for the last version known of one that is gone. Resyncs are left out.
func on[T interface {
	comparable
	GetResourceVersion() string
}](c *Controller, set func(before, now T), remove func(T)) cache.ResourceEventHandler {
	inbox := c.inbox // of this Run: what is delivered late must not reach the next
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			if o, ok := obj.(T); ok {
				var none T
				inbox.put(func() { set(none, o) })
			}
		},
		UpdateFunc: func(before, now any) {
			a, _ := before.(T)
			b, ok := now.(T)
			if !ok || (a.GetResourceVersion() == b.GetResourceVersion() && b.GetResourceVersion() != "") {
				return
			}
			inbox.put(func() { set(a, b) })
		},
		DeleteFunc: func(obj any) {
			if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = gone.Obj
			}
			if o, ok := obj.(T); ok {
				inbox.put(func() { remove(o) })
			}
		},
	}
}

func (c *Controller) subscribe() error {
	c.watched = c.watch()
	for i := range c.watched {
		w := &c.watched[i]
		r, err := w.informer.AddEventHandler(w.handler)
		if err != nil {
			c.unsubscribe()
			return fmt.Errorf("daemonset controller: watch %s: %w", w.resource, err)
		}
		w.registration = r
	}
	return nil
}

func (c *Controller) unsubscribe() {
	for i := range c.watched {
		w := &c.watched[i]
		if w.registration == nil {
			continue
		}
		// The only error is that the informer has stopped, and then there is nothing to take off.
		_ = w.informer.RemoveEventHandler(w.registration)
		w.registration = nil
	}
}
