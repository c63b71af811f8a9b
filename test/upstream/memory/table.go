package memory

import (
	"fmt"
	"slices"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

type object interface {
	metav1.Object
	runtime.Object
}

// table stores the objects of one kind. What it holds is never changed, only replaced, so watchers and readers
// share it. The API's lock guards it.
type table[T object] struct {
	api      *API
	resource schema.GroupResource
	objects  map[types.NamespacedName]T
	version  uint64 // of the last change
	watchers []*watcher
}

func newTable[T object](api *API, group, resource string) table[T] {
	return table[T]{
		api: api, resource: schema.GroupResource{Group: group, Resource: resource},
		objects: map[types.NamespacedName]T{},
	}
}

func (t *table[T]) get(namespace, name string) (T, error) {
	o, ok := t.objects[types.NamespacedName{Namespace: namespace, Name: name}]
	if !ok {
		return o, apierrors.NewNotFound(t.resource, name)
	}
	return o, nil
}

// create stores a new object, which is the table's from now on.
func (t *table[T]) create(o T) (T, error) {
	if o.GetName() == "" {
		o.SetName(fmt.Sprintf("%s%06x", o.GetGenerateName(), t.api.version))
	}
	key := types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
	if _, exists := t.objects[key]; exists {
		var none T
		return none, apierrors.NewAlreadyExists(t.resource, key.Name)
	}
	if o.GetUID() == "" {
		t.api.uids++
		o.SetUID(types.UID(fmt.Sprintf("uid-%d", t.api.uids)))
	}
	if created := o.GetCreationTimestamp(); created.IsZero() {
		o.SetCreationTimestamp(metav1.Now().Rfc3339Copy())
	}
	t.store(watch.Added, key, o)
	return o, nil
}

// update replaces an object. A version that is not the stored one is a conflict; none is any.
func (t *table[T]) update(o T) (T, error) {
	var none T
	key := types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
	stored, ok := t.objects[key]
	switch {
	case !ok:
		return none, apierrors.NewNotFound(t.resource, key.Name)
	case o.GetResourceVersion() != "" && o.GetResourceVersion() != stored.GetResourceVersion():
		return none, apierrors.NewConflict(t.resource, key.Name, fmt.Errorf("the object has been modified"))
	case o.GetUID() != stored.GetUID():
		return none, apierrors.NewConflict(t.resource, key.Name, fmt.Errorf("the UID is %s", stored.GetUID()))
	}
	t.store(watch.Modified, key, o)
	return o, nil
}

func (t *table[T]) store(what watch.EventType, key types.NamespacedName, o T) {
	t.stamp(o)
	t.objects[key] = o
	t.show(watch.Event{Type: what, Object: o})
}

// remove deletes an object. Its watchers are given last, a copy of it that may be changed.
func (t *table[T]) remove(last T) {
	delete(t.objects, types.NamespacedName{Namespace: last.GetNamespace(), Name: last.GetName()})
	t.stamp(last)
	t.show(watch.Event{Type: watch.Deleted, Object: last})
}

func (t *table[T]) stamp(o T) {
	t.api.version++
	t.version = t.api.version
	o.SetResourceVersion(strconv.FormatUint(t.version, 10))
}

// list returns the objects of a namespace, or all if it is "".
func (t *table[T]) list(namespace string) ([]T, metav1.ListMeta) {
	var all []T
	for key, o := range t.objects {
		if namespace == "" || key.Namespace == namespace {
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b T) int {
		return cmpNames(a.GetNamespace()+"/"+a.GetName(), b.GetNamespace()+"/"+b.GetName())
	})
	return all, metav1.ListMeta{ResourceVersion: strconv.FormatUint(t.api.version, 10)}
}

// watch starts at the version of a list; if the table has changed since, the watcher has to list again.
func (t *table[T]) watch(o metav1.ListOptions) (watch.Interface, error) {
	if from, err := strconv.ParseUint(o.ResourceVersion, 10, 64); err != nil || from < t.version {
		return nil, apierrors.NewResourceExpired(fmt.Sprintf("%s: version %q is too old", t.resource, o.ResourceVersion))
	}
	w := &watcher{events: make(chan watch.Event, 1024), done: make(chan struct{})}
	t.watchers = append(t.watchers, w)
	return w, nil
}

func (t *table[T]) show(e watch.Event) {
	t.watchers = slices.DeleteFunc(t.watchers, func(w *watcher) bool { return !w.send(e) })
}
