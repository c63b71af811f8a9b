package explain

import (
	"context"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/pager"

	"github.com/everynode/everynode/internal/decide/daemonset"
	"github.com/everynode/everynode/internal/decide/nodehealth"
)

const (
	// chunk is how many objects are asked for at once. The chunks of one list are of one moment.
	chunk = 1000
	// fewNodes is up to how many nodes are asked about one by one, rather than all pods of the cluster listed.
	fewNodes = 8
)

// Gatherer lists what is needed, from any Kubernetes API server.
type Gatherer struct {
	Client kubernetes.Interface
	// Now tells the time. Default: time.Now.
	Now func() time.Time
}

func (g *Gatherer) now() time.Time {
	if g.Now == nil {
		return time.Now()
	}
	return g.Now()
}

// ForWhy gathers what Why needs for the named nodes, all if none is named. The pods of other namespaces are only
// listed for nodes where a pod waits for room.
func (g *Gatherer) ForWhy(ctx context.Context, namespace, name string, nodes []string) (*Facts, error) {
	ds, err := g.Client.AppsV1().DaemonSets(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read DaemonSet %s/%s: %w", namespace, name, err)
	}
	f := &Facts{Now: g.now(), DaemonSet: ds, Partial: len(nodes) > 0}
	if f.Nodes, err = g.nodes(ctx, nodes); err != nil {
		return nil, err
	}
	if err := g.own(ctx, f); err != nil {
		return nil, err
	}
	if err := g.leases(ctx, f); err != nil {
		return nil, err
	}
	v := f.view()
	if waiting := v.waitingForRoom(); len(waiting) > 0 {
		if err := g.room(ctx, f, waiting); err != nil {
			return nil, err
		}
	}
	if v.missing() {
		f.Events = g.warnings(ctx, ds)
	}
	return f, nil
}

// ForPlan gathers what NewPlan needs for the DaemonSet as it would be: everything on all nodes.
func (g *Gatherer) ForPlan(ctx context.Context, ds *appsv1.DaemonSet) (*Facts, error) {
	f := &Facts{Now: g.now(), DaemonSet: ds}
	var err error
	if f.Nodes, err = g.nodes(ctx, nil); err != nil {
		return nil, err
	}
	if err := g.own(ctx, f); err != nil {
		return nil, err
	}
	if err := g.leases(ctx, f); err != nil {
		return nil, err
	}
	return f, g.room(ctx, f, nil)
}

// leases asks when the nodes that are not ready last renewed theirs. Who may not read them gets the answer without.
func (g *Gatherer) leases(ctx context.Context, f *Facts) error {
	f.Renewed = map[string]time.Time{}
	note := func(l *coordinationv1.Lease) {
		if l.Spec.RenewTime != nil {
			f.Renewed[l.Name] = l.Spec.RenewTime.Time
		}
	}
	var names []string
	for _, n := range f.Nodes {
		if h := nodehealth.Explain(n, time.Time{}); h.Ready != corev1.ConditionTrue {
			names = append(names, n.Name)
		}
	}
	if len(names) > fewNodes {
		var all []*coordinationv1.Lease
		err := list(ctx, metav1.ListOptions{}, func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return g.Client.CoordinationV1().Leases(corev1.NamespaceNodeLease).List(ctx, o)
		}, &all)
		if err != nil && !apierrors.IsForbidden(err) {
			return fmt.Errorf("list leases of nodes: %w", err)
		}
		for _, l := range all {
			note(l)
		}
		return nil
	}
	for _, name := range names {
		l, err := g.Client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Get(ctx, name, metav1.GetOptions{})
		switch {
		case err == nil:
			note(l)
		case !apierrors.IsForbidden(err) && !apierrors.IsNotFound(err):
			return fmt.Errorf("read the lease of node %s: %w", name, err)
		}
	}
	return nil
}

func (g *Gatherer) nodes(ctx context.Context, names []string) ([]*corev1.Node, error) {
	var all []*corev1.Node
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		n, err := g.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, fmt.Errorf("read node %s: %w", name, err)
		}
		all = append(all, n)
	}
	if len(names) > 0 {
		return all, nil
	}
	err := list(ctx, metav1.ListOptions{}, func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
		return g.Client.CoreV1().Nodes().List(ctx, o)
	}, &all)
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	return all, nil
}

// own lists the DaemonSet's pods and revisions. Who may not read revisions gets the answer without them.
func (g *Gatherer) own(ctx context.Context, f *Facts) error {
	namespace := f.DaemonSet.Namespace
	selector, err := metav1.LabelSelectorAsSelector(f.DaemonSet.Spec.Selector)
	if err != nil || selector.Empty() {
		selector = labels.Nothing()
	}
	matching := metav1.ListOptions{LabelSelector: selector.String()}
	err = list(ctx, matching, func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
		return g.Client.CoreV1().Pods(namespace).List(ctx, o)
	}, &f.Pods)
	if err != nil {
		return fmt.Errorf("list pods of namespace %s: %w", namespace, err)
	}
	err = list(ctx, metav1.ListOptions{}, func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
		return g.Client.AppsV1().ControllerRevisions(namespace).List(ctx, o)
	}, &f.Revisions)
	if err != nil && !apierrors.IsForbidden(err) {
		return fmt.Errorf("list revisions of namespace %s: %w", namespace, err)
	}
	return nil
}

// room lists the pods that take room on the nodes, on all if none is named.
func (g *Gatherer) room(ctx context.Context, f *Facts, nodes []string) error {
	bound := fields.AndSelectors(
		fields.OneTermNotEqualSelector("spec.nodeName", ""),
		fields.OneTermNotEqualSelector("status.phase", string(corev1.PodSucceeded)),
		fields.OneTermNotEqualSelector("status.phase", string(corev1.PodFailed)),
	)
	selectors := []fields.Selector{bound}
	if len(nodes) > 0 && len(nodes) <= fewNodes {
		selectors = nil
		for _, name := range nodes {
			selectors = append(selectors, fields.OneTermEqualSelector("spec.nodeName", name))
		}
	}
	known := map[string]bool{}
	for _, p := range f.Pods {
		known[p.Namespace+"/"+p.Name] = true
	}
	for _, s := range selectors {
		var pods []*corev1.Pod
		err := list(ctx, metav1.ListOptions{FieldSelector: s.String()}, func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return g.Client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, o)
		}, &pods)
		if apierrors.IsForbidden(err) {
			f.RoomUnknown = "whether nodes have room is not known: you may not list the pods of all namespaces"
			return nil
		}
		if err != nil {
			return fmt.Errorf("list pods of all namespaces: %w", err)
		}
		for _, p := range pods {
			if key := p.Namespace + "/" + p.Name; !known[key] {
				known[key] = true
				f.Pods = append(f.Pods, p)
			}
		}
	}
	return nil
}

// warnings returns the latest warnings about the DaemonSet. They are a courtesy: without them the answer is less
// precise, not wrong.
func (g *Gatherer) warnings(ctx context.Context, ds *appsv1.DaemonSet) []*corev1.Event {
	about := fields.AndSelectors(
		fields.OneTermEqualSelector("involvedObject.kind", "DaemonSet"),
		fields.OneTermEqualSelector("involvedObject.name", ds.Name),
		fields.OneTermEqualSelector("type", corev1.EventTypeWarning),
	)
	var all []*corev1.Event
	err := list(ctx, metav1.ListOptions{FieldSelector: about.String()}, func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
		return g.Client.CoreV1().Events(ds.Namespace).List(ctx, o)
	}, &all)
	if err != nil {
		return nil
	}
	all = slices.DeleteFunc(all, func(e *corev1.Event) bool {
		return e.InvolvedObject.UID != ds.UID || e.Reason != "FailedCreate"
	})
	slices.SortFunc(all, func(a, b *corev1.Event) int { return eventTime(b).Compare(eventTime(a)) })
	return all
}

func eventTime(e *corev1.Event) time.Time {
	switch {
	case e.Series != nil:
		return e.Series.LastObservedTime.Time
	case !e.LastTimestamp.IsZero():
		return e.LastTimestamp.Time
	default:
		return e.EventTime.Time
	}
}

// list appends all objects of a list, asked for in chunks.
func list[T any](ctx context.Context, o metav1.ListOptions, page func(context.Context, metav1.ListOptions) (runtime.Object, error), into *[]*T) error {
	p := pager.New(page)
	p.PageSize = chunk
	p.PageBufferSize = 1
	return p.EachListItem(ctx, o, func(obj runtime.Object) error {
		item, ok := any(obj).(*T)
		if !ok {
			return fmt.Errorf("the list holds a %T", obj)
		}
		*into = append(*into, item)
		return nil
	})
}

// waitingForRoom lists the nodes for which it matters what takes room there.
func (v *view) waitingForRoom() []string {
	var names []string
	for _, name := range v.nodeNames() {
		verdict := v.set.Explain(name, v.facts.Now)
		unbound := slices.ContainsFunc(verdict.Pods, func(p daemonset.PodFact) bool { return !p.Bound && !p.Ended })
		if unbound || (verdict.State == daemonset.Pending && !slices.ContainsFunc(verdict.Pods, func(p daemonset.PodFact) bool { return !p.Ended })) {
			names = append(names, name)
		}
	}
	return names
}

// missing says whether any node lacks its pod.
func (v *view) missing() bool {
	return slices.ContainsFunc(v.nodeNames(), func(name string) bool {
		verdict := v.set.Explain(name, v.facts.Now)
		return verdict.State == daemonset.Pending && len(verdict.Pods) == 0
	})
}
