package resourcemetrics

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/rest"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/metrics/pkg/apis/metrics"
	"k8s.io/metrics/pkg/apis/metrics/install"
	"k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// window is the time over which agents and kubelets measure processor use, about.
const window = 10 * time.Second

// nodeNameField selects pods of a node, which metrics-server cannot.
const nodeNameField = "spec.nodeName"

// Install adds the group's types to a scheme, with the field labels that can be selected by.
func Install(scheme *runtime.Scheme) error {
	install.Install(scheme)
	return scheme.AddFieldLabelConversionFunc(v1beta1.SchemeGroupVersion.WithKind("PodMetrics"), func(label, value string) (string, string, error) {
		if label == nodeNameField {
			return label, value, nil
		}
		return runtime.DefaultMetaV1FieldSelectorConversion(label, value)
	})
}

// Storage is the group's resources, by name.
func Storage(nodes corelisters.NodeLister, pods corelisters.PodLister, cache *Cache) map[string]rest.Storage {
	return map[string]rest.Storage{
		"nodes": &nodeMetrics{nodes: nodes, cache: cache},
		"pods":  &podMetrics{nodes: nodes, pods: pods, cache: cache},
	}
}

type nodeMetrics struct {
	columns
	nodes corelisters.NodeLister
	cache *Cache
}

var (
	_ rest.KindProvider         = &nodeMetrics{}
	_ rest.Getter               = &nodeMetrics{}
	_ rest.Lister               = &nodeMetrics{}
	_ rest.Scoper               = &nodeMetrics{}
	_ rest.SingularNameProvider = &nodeMetrics{}
)

// New implements rest.Storage, as do Destroy and the others the interfaces they are named for.
func (m *nodeMetrics) New() runtime.Object     { return &metrics.NodeMetrics{} }
func (m *nodeMetrics) Destroy()                {}
func (m *nodeMetrics) Kind() string            { return "NodeMetrics" }
func (m *nodeMetrics) NewList() runtime.Object { return &metrics.NodeMetricsList{} }
func (m *nodeMetrics) NamespaceScoped() bool   { return false }
func (m *nodeMetrics) GetSingularName() string { return "node" }

func (m *nodeMetrics) List(ctx context.Context, options *metainternalversion.ListOptions) (runtime.Object, error) {
	byLabel, byField, err := selectors(options, "metadata.name")
	if err != nil {
		return nil, err
	}
	all, err := m.nodes.List(byLabel)
	if err != nil {
		return nil, err
	}
	nodes := all[:0:0]
	for _, node := range all {
		if byField.Matches(fields.Set{"metadata.name": node.Name}) {
			nodes = append(nodes, node)
		}
	}
	usages := m.cache.Usages(ctx, nodes)
	list := &metrics.NodeMetricsList{Items: make([]metrics.NodeMetrics, 0, len(usages))}
	for _, node := range nodes {
		if u := usages[node.Name]; u != nil {
			list.Items = append(list.Items, toNodeMetrics(node, u))
		}
	}
	sort.Slice(list.Items, func(i, j int) bool { return list.Items[i].Name < list.Items[j].Name })
	return list, nil
}

func (m *nodeMetrics) Get(ctx context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	node, err := m.nodes.Get(name)
	if err != nil {
		return nil, apierrors.NewNotFound(metrics.Resource("nodes"), name)
	}
	u := m.cache.Usages(ctx, []*corev1.Node{node})[name]
	if u == nil {
		return nil, missing("nodes", name, m.cache, node)
	}
	out := toNodeMetrics(node, u)
	return &out, nil
}

// missing is what metrics-server says of what it does not know, and why.
func missing(kind, name string, cache *Cache, node *corev1.Node) error {
	err := apierrors.NewNotFound(metrics.Resource(kind), name)
	if why := cache.Why(node); why != nil {
		err.ErrStatus.Message += fmt.Sprintf(": node %s does not say what is used: %v", node.Name, why)
	}
	return err
}

func toNodeMetrics(node *corev1.Node, u *Usage) metrics.NodeMetrics {
	return metrics.NodeMetrics{
		ObjectMeta: metav1.ObjectMeta{Name: node.Name, CreationTimestamp: metav1.Now(), Labels: node.Labels},
		Timestamp:  metav1.NewTime(u.Node.At), Window: metav1.Duration{Duration: window}, Usage: list(u.Node),
	}
}

func list(s Sample) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewScaledQuantity(int64(s.NanoCores), resource.Nano),
		corev1.ResourceMemory: *resource.NewQuantity(int64(s.WorkingSet), resource.BinarySI),
	}
}

// selectors reads the options of a list, of which only some fields can be selected by.
func selectors(options *metainternalversion.ListOptions, known ...string) (labels.Selector, fields.Selector, error) {
	byLabel, byField := labels.Everything(), fields.Everything()
	if options != nil && options.LabelSelector != nil {
		byLabel = options.LabelSelector
	}
	if options != nil && options.FieldSelector != nil {
		byField = options.FieldSelector
	}
	for _, requirement := range byField.Requirements() {
		if !slices.Contains(known, requirement.Field) {
			return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("field selector %q: these metrics can be selected by %v", requirement.Field, known))
		}
	}
	return byLabel, byField, nil
}
