package housekeeping

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// zonePause is how long changes of nodes are gathered for the controller of EndpointSlices.
const zonePause = time.Second

// zoneNodes is the node informer as the controller of EndpointSlices needs it. That controller divides endpoints among
// zones by the nodes of each, and counts all nodes anew whenever one comes, goes, or changes its readiness or zone: on
// thousands of nodes, more than everything else that a joining node costs. Here it hears of the first change after a
// pause, for all that came during it.
type zoneNodes struct{ coreinformers.NodeInformer }

// Informer implements coreinformers.NodeInformer.
func (n zoneNodes) Informer() cache.SharedIndexInformer {
	return zoneInformer{n.NodeInformer.Informer()}
}

type zoneInformer struct{ cache.SharedIndexInformer }

// AddEventHandler implements cache.SharedInformer. The handler is told of every change as if a node were added: what
// changed does not matter to it, and the lister tells it the rest.
func (i zoneInformer) AddEventHandler(h cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	g := &gathered{tell: func(node any) { h.OnAdd(node, false) }}
	return i.SharedIndexInformer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: g.note,
		UpdateFunc: func(before, now any) {
			a, _ := before.(*corev1.Node)
			b, _ := now.(*corev1.Node)
			if a == nil || b == nil || zoneOf(a) != zoneOf(b) {
				g.note(now)
			}
		},
		DeleteFunc: g.note,
	})
}

// zoneOf is what the division among zones depends on, but for the CPU of a node, which hardly ever changes and which
// upstream does not watch either.
func zoneOf(n *corev1.Node) (z struct {
	zone  string
	ready bool
}) {
	z.zone = n.Labels[corev1.LabelTopologyZone]
	for i := range n.Status.Conditions {
		if c := &n.Status.Conditions[i]; c.Type == corev1.NodeReady {
			z.ready = c.Status == corev1.ConditionTrue
		}
	}
	return z
}

// gathered calls tell once, a pause after the first of the changes that come together, with the last of them.
type gathered struct {
	tell func(any)

	mu   sync.Mutex
	last any
}

func (g *gathered) note(obj any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.last == nil {
		time.AfterFunc(zonePause, g.flush)
	}
	g.last = obj
}

func (g *gathered) flush() {
	g.mu.Lock()
	last := g.last
	g.last = nil
	g.mu.Unlock()
	g.tell(last)
}
