package memory

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	appsclient "k8s.io/client-go/kubernetes/typed/apps/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
)

// Client returns a client of the API.
func (a *API) Client() kubernetes.Interface { return client{api: a} }

type client struct {
	kubernetes.Interface
	api *API
}

// IsWatchListSemanticsUnSupported makes reflectors list, then watch.
func (client) IsWatchListSemanticsUnSupported() bool { return true }

func (c client) CoreV1() coreclient.CoreV1Interface { return core{api: c.api} }
func (c client) AppsV1() appsclient.AppsV1Interface { return apps{api: c.api} }

type core struct {
	coreclient.CoreV1Interface
	api *API
}

func (c core) Nodes() coreclient.NodeInterface        { return nodes{api: c.api} }
func (c core) Pods(ns string) coreclient.PodInterface { return pods{api: c.api, namespace: ns} }
func (core) Events(string) coreclient.EventInterface  { return events{} }

type apps struct {
	appsclient.AppsV1Interface
	api *API
}

func (c apps) DaemonSets(ns string) appsclient.DaemonSetInterface {
	return daemonSets{api: c.api, namespace: ns}
}

func (c apps) ControllerRevisions(ns string) appsclient.ControllerRevisionInterface {
	return revisions{api: c.api, namespace: ns}
}

type nodes struct {
	coreclient.NodeInterface
	api *API
}

func (c nodes) List(context.Context, metav1.ListOptions) (*corev1.NodeList, error) {
	all, meta := locked(c.api, func() ([]*corev1.Node, metav1.ListMeta) { return c.api.nodes.list("") })
	return &corev1.NodeList{ListMeta: meta, Items: values(all)}, nil
}

func (c nodes) Watch(_ context.Context, o metav1.ListOptions) (watch.Interface, error) {
	return locked(c.api, func() (watch.Interface, error) { return c.api.nodes.watch(o) })
}

type pods struct {
	coreclient.PodInterface
	api       *API
	namespace string
}

func (c pods) Get(_ context.Context, name string, _ metav1.GetOptions) (*corev1.Pod, error) {
	return copied(locked(c.api, func() (*corev1.Pod, error) { return c.api.pods.get(c.namespace, name) }))
}

func (c pods) List(context.Context, metav1.ListOptions) (*corev1.PodList, error) {
	all, meta := locked(c.api, func() ([]*corev1.Pod, metav1.ListMeta) { return c.api.pods.list(c.namespace) })
	return &corev1.PodList{ListMeta: meta, Items: values(all)}, nil
}

func (c pods) Watch(_ context.Context, o metav1.ListOptions) (watch.Interface, error) {
	return locked(c.api, func() (watch.Interface, error) { return c.api.pods.watch(o) })
}

func (c pods) Create(_ context.Context, p *corev1.Pod, _ metav1.CreateOptions) (*corev1.Pod, error) {
	return c.api.createPod(c.namespace, p)
}

func (c pods) Delete(_ context.Context, name string, o metav1.DeleteOptions) error {
	return c.api.deletePod(c.namespace, name, o)
}

func (c pods) Patch(_ context.Context, name string, kind types.PatchType, body []byte, _ metav1.PatchOptions, _ ...string) (*corev1.Pod, error) {
	return patch(c.api, &c.api.pods, c.namespace, name, kind, body, &corev1.Pod{})
}

type daemonSets struct {
	appsclient.DaemonSetInterface
	api       *API
	namespace string
}

func (c daemonSets) Get(_ context.Context, name string, _ metav1.GetOptions) (*appsv1.DaemonSet, error) {
	return copied(locked(c.api, func() (*appsv1.DaemonSet, error) { return c.api.daemonSets.get(c.namespace, name) }))
}

func (c daemonSets) List(context.Context, metav1.ListOptions) (*appsv1.DaemonSetList, error) {
	all, meta := locked(c.api, func() ([]*appsv1.DaemonSet, metav1.ListMeta) { return c.api.daemonSets.list(c.namespace) })
	return &appsv1.DaemonSetList{ListMeta: meta, Items: values(all)}, nil
}

func (c daemonSets) Watch(_ context.Context, o metav1.ListOptions) (watch.Interface, error) {
	return locked(c.api, func() (watch.Interface, error) { return c.api.daemonSets.watch(o) })
}

func (c daemonSets) UpdateStatus(_ context.Context, ds *appsv1.DaemonSet, _ metav1.UpdateOptions) (*appsv1.DaemonSet, error) {
	return c.api.updateStatus(ds)
}

type revisions struct {
	appsclient.ControllerRevisionInterface
	api       *API
	namespace string
}

func (c revisions) Get(_ context.Context, name string, _ metav1.GetOptions) (*appsv1.ControllerRevision, error) {
	return copied(locked(c.api, func() (*appsv1.ControllerRevision, error) { return c.api.revisions.get(c.namespace, name) }))
}

func (c revisions) List(context.Context, metav1.ListOptions) (*appsv1.ControllerRevisionList, error) {
	all, meta := locked(c.api, func() ([]*appsv1.ControllerRevision, metav1.ListMeta) { return c.api.revisions.list(c.namespace) })
	return &appsv1.ControllerRevisionList{ListMeta: meta, Items: values(all)}, nil
}

func (c revisions) Watch(_ context.Context, o metav1.ListOptions) (watch.Interface, error) {
	return locked(c.api, func() (watch.Interface, error) { return c.api.revisions.watch(o) })
}

func (c revisions) Create(_ context.Context, r *appsv1.ControllerRevision, _ metav1.CreateOptions) (*appsv1.ControllerRevision, error) {
	return locked(c.api, func() (*appsv1.ControllerRevision, error) { return c.api.revisions.create(r.DeepCopy()) })
}

func (c revisions) Update(_ context.Context, r *appsv1.ControllerRevision, _ metav1.UpdateOptions) (*appsv1.ControllerRevision, error) {
	return locked(c.api, func() (*appsv1.ControllerRevision, error) { return c.api.revisions.update(r.DeepCopy()) })
}

func (c revisions) Delete(_ context.Context, name string, _ metav1.DeleteOptions) error {
	_, err := locked(c.api, func() (*appsv1.ControllerRevision, error) {
		r, err := c.api.revisions.get(c.namespace, name)
		if err == nil {
			c.api.revisions.remove(r.DeepCopy())
		}
		return r, err
	})
	return err
}

func (c revisions) Patch(_ context.Context, name string, kind types.PatchType, body []byte, _ metav1.PatchOptions, _ ...string) (*appsv1.ControllerRevision, error) {
	return patch(c.api, &c.api.revisions, c.namespace, name, kind, body, &appsv1.ControllerRevision{})
}

// events takes events and keeps none.
type events struct{ coreclient.EventInterface }

func (events) CreateWithEventNamespace(e *corev1.Event) (*corev1.Event, error) {
	return e, nil
}

func (events) UpdateWithEventNamespace(e *corev1.Event) (*corev1.Event, error) {
	return e, nil
}

func (events) PatchWithEventNamespace(e *corev1.Event, _ []byte) (*corev1.Event, error) {
	return e, nil
}

func locked[A, B any](a *API, f func() (A, B)) (A, B) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return f()
}

func copied[T interface{ DeepCopy() T }](o T, err error) (T, error) {
	if err != nil {
		return o, err
	}
	return o.DeepCopy(), nil
}

func values[T any](all []*T) []T {
	out := make([]T, len(all))
	for i, o := range all {
		out[i] = *o
	}
	return out
}
