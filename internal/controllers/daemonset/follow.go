package daemonset

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/everynode/everynode/internal/decide/placement"
)

type daemonSet = appsv1.DaemonSet

// kind follows the objects of one kind for the loop. It is a reflector's store that stores no objects: of each it
// keeps a K, which is what the loop needs to take back what it was told when the object changes or has gone.
type kind[T object, K any] struct {
	name    string
	inbox   *inbox // of this Run: what is delivered late must not reach the next
	mutants cache.MutationDetector

	// What follows belongs to the loop.

	known  map[types.NamespacedName]K
	listed func() // all that there was has been told; nil after the first time
	// set takes a new version of an object, and what it returned for the one before, if there was one.
	set    func(before K, seen bool, now T) K
	remove func(key types.NamespacedName, last K)
}

type object interface {
	runtime.Object
	metav1.Object
}

// follow starts the reflectors of this Run, which end with ctx.
func (c *Controller) follow(ctx context.Context) {
	c.unlisted = 4
	from := c.o.Sources
	followKind(ctx, c, "daemonsets", from.DaemonSets, &kind[*daemonSet, *daemonSet]{
		set: func(before *daemonSet, seen bool, now *daemonSet) *daemonSet {
			if seen && before.UID != now.UID {
				c.removeDaemonSet(before)
			}
			c.setDaemonSet(now)
			return now
		},
		remove: func(_ types.NamespacedName, last *daemonSet) { c.removeDaemonSet(last) },
	})
	followKind(ctx, c, "controllerrevisions", from.ControllerRevisions, &kind[*controllerRevision, *controllerRevision]{
		set: func(_ *controllerRevision, _ bool, now *controllerRevision) *controllerRevision {
			c.setRevision(now)
			return now
		},
		remove: func(_ types.NamespacedName, last *controllerRevision) { c.removeRevision(last) },
	})
	c.nodes = followKind(ctx, c, "nodes", from.Nodes, &kind[*corev1.Node, *placement.Node]{
		set:    c.setNode,
		remove: func(key types.NamespacedName, _ *placement.Node) { c.removeNode(key.Name) },
	})
	followKind(ctx, c, "pods", from.Pods, &kind[*corev1.Pod, podRef]{set: c.setPod, remove: c.removePod})
}

// followKind runs a reflector beside the loop. It returns what is known of the kind, which is the loop's.
func followKind[T object, K any](ctx context.Context, c *Controller, name string, from cache.ListerWatcher, k *kind[T, K]) map[types.NamespacedName]K {
	k.name, k.inbox, k.known, k.listed = name, c.inbox, map[types.NamespacedName]K{}, c.kindListed
	k.mutants = cache.NewCacheMutationDetector("daemonset controller: " + name)
	c.beside.Go(func() { k.mutants.Run(ctx.Done()) })
	var of T
	r := cache.NewReflectorWithOptions(consistent{from}, of, k, cache.ReflectorOptions{Name: "daemonset controller: " + name})
	c.beside.Go(func() { r.RunWithContext(ctx) })
	return k.known
}

// kindListed lets the loop act once it has been told all that there is of every kind.
func (c *Controller) kindListed() {
	if c.unlisted--; c.unlisted > 0 {
		return
	}
	c.acting = true
	for _, d := range c.sets {
		c.syncHistory(d)
	}
}

// Add implements cache.ReflectorStore.
func (k *kind[T, K]) Add(o any) error { return k.Update(o) }

// Update implements cache.ReflectorStore.
func (k *kind[T, K]) Update(obj any) error {
	o, ok := obj.(T)
	if !ok {
		return fmt.Errorf("a %T among the %s", obj, k.name)
	}
	k.mutants.AddObject(o)
	k.inbox.put(func() { k.take(o) })
	return nil
}

// Delete implements cache.ReflectorStore.
func (k *kind[T, K]) Delete(obj any) error {
	o, ok := obj.(T)
	if !ok {
		return fmt.Errorf("a %T among the %s", obj, k.name)
	}
	key := keyOf(o)
	k.inbox.put(func() { k.forget(key) })
	return nil
}

// Replace implements cache.ReflectorStore: it takes a whole list, which is how every watch begins.
func (k *kind[T, K]) Replace(list []any, _ string) error {
	objects := make([]T, 0, len(list))
	for _, obj := range list {
		o, ok := obj.(T)
		if !ok {
			return fmt.Errorf("a %T among the %s", obj, k.name)
		}
		k.mutants.AddObject(o)
		objects = append(objects, o)
	}
	k.inbox.put(func() { k.takeAll(objects) })
	return nil
}

// Resync implements cache.ReflectorStore: nothing is told twice.
func (k *kind[T, K]) Resync() error { return nil }

func (k *kind[T, K]) takeAll(list []T) {
	listed := make(map[types.NamespacedName]bool, len(list))
	for _, o := range list {
		listed[keyOf(o)] = true
	}
	for key := range k.known {
		if !listed[key] {
			k.forget(key)
		}
	}
	for _, o := range list {
		k.take(o)
	}
	if k.listed != nil {
		k.listed()
		k.listed = nil
	}
}

func (k *kind[T, K]) take(o T) {
	key := keyOf(o)
	before, seen := k.known[key]
	k.known[key] = k.set(before, seen, o)
}

func (k *kind[T, K]) forget(key types.NamespacedName) {
	if last, seen := k.known[key]; seen {
		delete(k.known, key)
		k.remove(key, last)
	}
}

func keyOf(o metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}
