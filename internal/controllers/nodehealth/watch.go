package nodehealth

import (
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	machine "github.com/everynode/everynode/internal/decide/nodehealth"
)

// byNode is the name of the index of pods by their node, as upstream's controllers call it: they share it.
const byNode = "spec.nodeName"

func (c *Controller) index() error {
	informer := c.o.Informers.Core().V1().Pods().Informer()
	c.pods = informer.GetIndexer()
	if _, has := c.pods.GetIndexers()[byNode]; has {
		return nil
	}
	err := informer.AddIndexers(cache.Indexers{byNode: func(obj any) ([]string, error) {
		if p, ok := obj.(*corev1.Pod); ok && p.Spec.NodeName != "" {
			return []string{p.Spec.NodeName}, nil
		}
		return nil, nil
	}})
	if err != nil {
		return fmt.Errorf("node health controller: index pods by node: %w", err)
	}
	return nil
}

// podsOn is how the machine finds the pods of a node.
func (c *Controller) podsOn(node string) []*corev1.Pod {
	found, err := c.pods.ByIndex(byNode, node)
	if err != nil { // there is no such index; but New has made it
		return nil
	}
	pods := make([]*corev1.Pod, 0, len(found))
	for _, obj := range found {
		if p, ok := obj.(*corev1.Pod); ok {
			pods = append(pods, p)
		}
	}
	return pods
}

type watched struct {
	resource string
	informer cache.SharedIndexInformer
	handler  cache.ResourceEventHandler
}

// watched asks the factory for the informers, and says what their events tell the machine.
func (c *Controller) watched() []watched {
	core := c.o.Informers.Core().V1()
	return []watched{
		{"nodes", core.Nodes().Informer(), on(c,
			func(s *machine.Set, n *corev1.Node, now time.Time) { s.SetNode(n, now) },
			func(s *machine.Set, n *corev1.Node) { s.RemoveNode(n.Name, n.UID) })},
		{"leases", c.o.Informers.Coordination().V1().Leases().Informer(), on(c, renewed, leaseGone)},
		{"pods", core.Pods().Informer(), on(c,
			func(s *machine.Set, p *corev1.Pod, now time.Time) { s.SetPod(p, now) },
			func(s *machine.Set, p *corev1.Pod) { s.RemovePod(p) })},
	}
}

func renewed(s *machine.Set, l *coordinationv1.Lease, now time.Time) {
	if l.Namespace == corev1.NamespaceNodeLease && l.Spec.RenewTime != nil {
		s.Renewed(l.Name, l.Spec.RenewTime.Time, now)
	}
}

func leaseGone(s *machine.Set, l *coordinationv1.Lease) {
	if l.Namespace == corev1.NamespaceNodeLease {
		s.RemoveLease(l.Name)
	}
}

// on makes a handler that tells the machine each new version of an object, and that one is gone. Resyncs are left
// out.
func on[T interface {
	comparable
	GetResourceVersion() string
}](c *Controller, set func(*machine.Set, T, time.Time), remove func(*machine.Set, T)) cache.ResourceEventHandler {
	known := func(obj any) {
		if o, ok := obj.(T); ok {
			c.tell(func(s *machine.Set, now time.Time) { set(s, o, now) })
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: known,
		UpdateFunc: func(before, now any) {
			a, _ := before.(T)
			b, ok := now.(T)
			if ok && a.GetResourceVersion() == b.GetResourceVersion() && b.GetResourceVersion() != "" {
				return
			}
			known(now)
		},
		DeleteFunc: func(obj any) {
			if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = gone.Obj
			}
			if o, ok := obj.(T); ok {
				c.tell(func(s *machine.Set, _ time.Time) { remove(s, o) })
			}
		},
	}
}

// subscribe registers the handlers. synced tells whether they have been given all that there was.
func (c *Controller) subscribe() (synced func() bool, unsubscribe func(), err error) {
	type subscription struct {
		cache.ResourceEventHandlerRegistration
		informer cache.SharedIndexInformer
	}
	var all []subscription
	unsubscribe = func() {
		for _, s := range all {
			// The only error is that the informer has stopped, and then there is nothing to take off.
			_ = s.informer.RemoveEventHandler(s.ResourceEventHandlerRegistration)
		}
	}
	for _, w := range c.watched() {
		r, err := w.informer.AddEventHandler(w.handler)
		if err != nil {
			unsubscribe()
			return nil, nil, fmt.Errorf("node health controller: watch %s: %w", w.resource, err)
		}
		all = append(all, subscription{r, w.informer})
	}
	return func() bool {
		for _, s := range all {
			if !s.HasSynced() {
				return false
			}
		}
		return true
	}, unsubscribe, nil
}
