package resourcemetrics

import (
	"context"
	"sort"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	genericrequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/metrics/pkg/apis/metrics"
)

type podMetrics struct {
	columns
	nodes corelisters.NodeLister
	pods  corelisters.PodLister
	cache *Cache
}

var (
	_ rest.KindProvider         = &podMetrics{}
	_ rest.Getter               = &podMetrics{}
	_ rest.Lister               = &podMetrics{}
	_ rest.Scoper               = &podMetrics{}
	_ rest.SingularNameProvider = &podMetrics{}
)

// New implements rest.Storage, as do Destroy and the others the interfaces they are named for.
func (m *podMetrics) New() runtime.Object     { return &metrics.PodMetrics{} }
func (m *podMetrics) Destroy()                {}
func (m *podMetrics) Kind() string            { return "PodMetrics" }
func (m *podMetrics) NewList() runtime.Object { return &metrics.PodMetricsList{} }
func (m *podMetrics) NamespaceScoped() bool   { return true }
func (m *podMetrics) GetSingularName() string { return "pod" }

func (m *podMetrics) List(ctx context.Context, options *metainternalversion.ListOptions) (runtime.Object, error) {
	byLabel, byField, err := selectors(options, "metadata.name", "metadata.namespace", nodeNameField)
	if err != nil {
		return nil, err
	}
	all, err := m.pods.Pods(genericrequest.NamespaceValue(ctx)).List(byLabel)
	if err != nil {
		return nil, err
	}
	pods := all[:0:0]
	for _, pod := range all {
		if placed(pod) && byField.Matches(fields.Set{"metadata.name": pod.Name, "metadata.namespace": pod.Namespace, nodeNameField: pod.Spec.NodeName}) {
			pods = append(pods, pod)
		}
	}
	usages := m.cache.Usages(ctx, m.nodesOf(pods))
	out := &metrics.PodMetricsList{Items: make([]metrics.PodMetrics, 0, len(pods))}
	for _, pod := range pods {
		if u, ok := usageOf(pod, usages); ok {
			out.Items = append(out.Items, toPodMetrics(pod, u))
		}
	}
	sort.Slice(out.Items, func(i, j int) bool {
		a, b := &out.Items[i], &out.Items[j]
		return a.Namespace < b.Namespace || a.Namespace == b.Namespace && a.Name < b.Name
	})
	return out, nil
}

func (m *podMetrics) Get(ctx context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	pod, err := m.pods.Pods(genericrequest.NamespaceValue(ctx)).Get(name)
	if err != nil || !placed(pod) {
		return nil, apierrors.NewNotFound(metrics.Resource("pods"), name)
	}
	nodes := m.nodesOf([]*corev1.Pod{pod})
	if u, ok := usageOf(pod, m.cache.Usages(ctx, nodes)); ok {
		out := toPodMetrics(pod, u)
		return &out, nil
	}
	if len(nodes) == 0 {
		return nil, apierrors.NewNotFound(metrics.Resource("pods"), name)
	}
	return nil, missing("pods", name, m.cache, nodes[0])
}

// placed pods are on a node and may have something that runs.
func placed(pod *corev1.Pod) bool {
	return pod.Spec.NodeName != "" && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
}

// nodesOf are the nodes that the pods are on, each once.
func (m *podMetrics) nodesOf(pods []*corev1.Pod) []*corev1.Node {
	seen := map[string]bool{}
	var nodes []*corev1.Node
	for _, pod := range pods {
		if seen[pod.Spec.NodeName] {
			continue
		}
		seen[pod.Spec.NodeName] = true
		if node, err := m.nodes.Get(pod.Spec.NodeName); err == nil {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

// usageOf is what the pod uses, and not another that had its name a moment ago. A static pod is
// known to its kubelet by the hash of its manifest.
func usageOf(pod *corev1.Pod, usages map[string]*Usage) (PodUsage, bool) {
	u := usages[pod.Spec.NodeName]
	if u == nil {
		return PodUsage{}, false
	}
	of, ok := u.Pods[types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}]
	mirrored := pod.Annotations[corev1.MirrorPodAnnotationKey] != ""
	return of, ok && (of.UID == pod.UID || mirrored)
}

func toPodMetrics(pod *corev1.Pod, u PodUsage) metrics.PodMetrics {
	out := metrics.PodMetrics{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, CreationTimestamp: metav1.Now(), Labels: pod.Labels},
		Window:     metav1.Duration{Duration: window},
	}
	for _, c := range u.Containers {
		out.Containers = append(out.Containers, metrics.ContainerMetrics{Name: c.Name, Usage: list(c.Sample)})
		if out.Timestamp.IsZero() || c.At.Before(out.Timestamp.Time) {
			out.Timestamp = metav1.NewTime(c.At)
		}
	}
	return out
}
