package memory

import (
	"encoding/json"
	"fmt"
	"sync"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// API is the server. It is safe for concurrent use.
type API struct {
	// Started, if set, returns the next version of a pod that was just stored, as its node would report it; nil
	// for none. It must not change the pod, and is called under the API's lock.
	Started func(*corev1.Pod) *corev1.Pod

	mu         sync.Mutex
	version    uint64
	uids       int
	nodes      table[*corev1.Node]
	pods       table[*corev1.Pod]
	daemonSets table[*appsv1.DaemonSet]
	revisions  table[*appsv1.ControllerRevision]
}

// New returns an empty API.
func New() *API {
	a := &API{version: 1}
	a.nodes = newTable[*corev1.Node](a, "", "nodes")
	a.pods = newTable[*corev1.Pod](a, "", "pods")
	a.daemonSets = newTable[*appsv1.DaemonSet](a, "apps", "daemonsets")
	a.revisions = newTable[*appsv1.ControllerRevision](a, "apps", "controllerrevisions")
	return a
}

// Version rises with every change.
func (a *API) Version() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.version
}

// Watchers counts the open watches.
func (a *API) Watchers() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.nodes.watchers) + len(a.pods.watchers) + len(a.daemonSets.watchers) + len(a.revisions.watchers)
}

// CountPods counts the pods.
func (a *API) CountPods() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.pods.objects)
}

// Forget drops the pods and nodes without telling anyone, so that what is left of them is what the watchers keep.
func (a *API) Forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pods.objects, a.nodes.objects = nil, nil
}

// Put stores an object in place of the one that may be there, whatever its version; a DaemonSet's status and the
// generation are the API's.
func (a *API) Put(o any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch o := o.(type) {
	case *corev1.Node:
		put(&a.nodes, o.DeepCopy())
	case *corev1.Pod:
		put(&a.pods, o.DeepCopy())
	case *appsv1.ControllerRevision:
		put(&a.revisions, o.DeepCopy())
	case *appsv1.DaemonSet:
		o = o.DeepCopy()
		o.Generation = 1
		if stored, err := a.daemonSets.get(o.Namespace, o.Name); err == nil && stored.UID == o.UID {
			o.Status, o.Generation = stored.Status, stored.Generation
			if !equality.Semantic.DeepEqual(o.Spec, stored.Spec) {
				o.Generation++
			}
		}
		put(&a.daemonSets, o)
	default:
		panic(fmt.Sprintf("put a %T", o))
	}
}

func put[T object](t *table[T], o T) {
	stored, err := t.get(o.GetNamespace(), o.GetName())
	if err == nil {
		o.SetResourceVersion("")
		o.SetUID(stored.GetUID())
		_, err = t.update(o)
	} else {
		_, err = t.create(o)
	}
	if err != nil {
		panic(err) // neither can fail under the lock
	}
}

// RemoveNode deletes a node; its pods stay.
func (a *API) RemoveNode(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n, err := a.nodes.get("", name); err == nil {
		a.nodes.remove(n.DeepCopy())
	}
}

// RemovePod deletes a pod at once.
func (a *API) RemovePod(namespace, name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p, err := a.pods.get(namespace, name); err == nil {
		a.pods.remove(p.DeepCopy())
	}
}

// RemoveDaemonSet deletes a DaemonSet and nothing that it owns.
func (a *API) RemoveDaemonSet(namespace, name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if ds, err := a.daemonSets.get(namespace, name); err == nil {
		a.daemonSets.remove(ds.DeepCopy())
	}
}

// RemoveRevision deletes a ControllerRevision.
func (a *API) RemoveRevision(namespace, name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r, err := a.revisions.get(namespace, name); err == nil {
		a.revisions.remove(r.DeepCopy())
	}
}

// Nodes lists all nodes by name. They must not be changed.
func (a *API) Nodes() []*corev1.Node {
	a.mu.Lock()
	defer a.mu.Unlock()
	all, _ := a.nodes.list("")
	return all
}

// Pods lists all pods by name. They must not be changed.
func (a *API) Pods() []*corev1.Pod {
	a.mu.Lock()
	defer a.mu.Unlock()
	all, _ := a.pods.list("")
	return all
}

// Revisions lists all ControllerRevisions by name. They must not be changed.
func (a *API) Revisions() []*appsv1.ControllerRevision {
	a.mu.Lock()
	defer a.mu.Unlock()
	all, _ := a.revisions.list("")
	return all
}

// DaemonSet returns a DaemonSet, nil if there is none. It must not be changed.
func (a *API) DaemonSet(namespace, name string) *appsv1.DaemonSet {
	a.mu.Lock()
	defer a.mu.Unlock()
	ds, err := a.daemonSets.get(namespace, name)
	if err != nil {
		return nil
	}
	return ds
}

func (a *API) createPod(namespace string, p *corev1.Pod) (*corev1.Pod, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	stored := *p // not a deep copy, which would cost more than the rest: whoever creates a pod is done with it
	p = &stored
	p.Namespace = namespace
	if p.Status.Phase == "" {
		p.Status.Phase = corev1.PodPending
	}
	p, err := a.pods.create(p)
	if err != nil || a.Started == nil {
		return p, err
	}
	if next := a.Started(p); next != nil {
		_, err = a.pods.update(next)
	}
	return p, err
}

// deletePod lets a pod that runs on a node terminate; any other is gone at once.
func (a *API) deletePod(namespace, name string, o metav1.DeleteOptions) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	p, err := a.pods.get(namespace, name)
	if err != nil {
		return err
	}
	if o.Preconditions != nil && o.Preconditions.UID != nil && *o.Preconditions.UID != p.UID {
		return apierrors.NewConflict(a.pods.resource, name, fmt.Errorf("the UID is %s", p.UID))
	}
	ended := p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded
	p = p.DeepCopy()
	if p.Spec.NodeName == "" || ended || (o.GracePeriodSeconds != nil && *o.GracePeriodSeconds == 0) {
		a.pods.remove(p)
		return nil
	}
	if p.DeletionTimestamp == nil {
		now := metav1.Now().Rfc3339Copy()
		p.DeletionTimestamp = &now
		_, err = a.pods.update(p)
	}
	return err
}

// updateStatus stores the status and nothing else; one that is stored already is no change.
func (a *API) updateStatus(ds *appsv1.DaemonSet) (*appsv1.DaemonSet, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	stored, err := a.daemonSets.get(ds.Namespace, ds.Name)
	switch {
	case err != nil:
		return nil, err
	case ds.ResourceVersion != stored.ResourceVersion || ds.UID != stored.UID:
		return nil, apierrors.NewConflict(a.daemonSets.resource, ds.Name, fmt.Errorf("the object has been modified"))
	case equality.Semantic.DeepEqual(ds.Status, stored.Status):
		return stored, nil
	}
	next := stored.DeepCopy()
	next.Status = *ds.Status.DeepCopy()
	return a.daemonSets.update(next)
}

// patch applies a patch to an object; one with another UID is a conflict.
func patch[T object](a *API, t *table[T], namespace, name string, kind types.PatchType, body []byte, into T) (T, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	stored, err := t.get(namespace, name)
	if err != nil {
		return into, err
	}
	before, err := json.Marshal(stored)
	if err != nil {
		return into, err
	}
	var after []byte
	switch kind {
	case types.StrategicMergePatchType:
		after, err = strategicpatch.StrategicMergePatch(before, body, into)
	case types.MergePatchType:
		after, err = jsonpatch.MergePatch(before, body)
	default:
		err = fmt.Errorf("a patch of kind %s", kind)
	}
	if err != nil {
		return into, apierrors.NewBadRequest(err.Error())
	}
	if err := json.Unmarshal(after, into); err != nil {
		return into, apierrors.NewBadRequest(err.Error())
	}
	return t.update(into)
}
