package sim

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/everynode/everynode/internal/decide/placement"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// fleet is the machines: each runs its pods as its own late view of the API says, while it is up.
type fleet struct {
	w      *world
	hosts  map[string]*host
	order  []*host // of joining; also those that have left
	joined int

	room corev1.ResourceList // of every node; shared
}

// host is one machine.
type host struct {
	name string
	// here: it has a Node object. up: it runs, so that its pods are looked after.
	here, up bool
	life     int // boots, so that what was under way before one is dropped
	started  map[types.UID]int
}

func newFleet(w *world) *fleet {
	return &fleet{w: w, hosts: map[string]*host{}, room: corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("16Gi"),
		corev1.ResourceEphemeralStorage: resource.MustParse("100Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}}
}

// join adds a new node, or one that had left.
func (f *fleet) join(name string) {
	h := f.hosts[name]
	if h == nil {
		h = &host{name: fmt.Sprintf("node-%06d", f.joined)}
		f.joined++
		f.hosts[h.name] = h
		f.order = append(f.order, h)
	}
	h.here = true
	f.w.store.setNode(f.node(h.name))
	f.boot(h)
}

var zones, pools = []string{"zone-a", "zone-b", "zone-c"}, []string{"a", "b"}

// node is a Node object as it joins: nobody has tainted or relabelled it.
func (f *fleet) node(name string) *corev1.Node {
	labels := maps.Clone(f.w.o.NodeLabels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[corev1.LabelHostname], labels[corev1.LabelOSStable], labels[corev1.LabelArchStable] = name, "linux", "amd64"
	labels[corev1.LabelTopologyZone] = zones[len(f.order)%len(zones)]
	if labels["pool"] == "" {
		labels["pool"] = pools[0]
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Status:     corev1.NodeStatus{Allocatable: f.room},
	}
}

// boot brings a machine up: pods that it finds start anew.
func (f *fleet) boot(h *host) {
	h.up = true
	h.life++
	h.started = nil
	for _, p := range slices.Clone(f.w.store.onNode[h.name]) {
		if p.Spec.NodeName == "" {
			continue
		}
		if p.Status.Phase == corev1.PodRunning && p.DeletionTimestamp == nil {
			f.w.store.changePod(p.Name, p.UID, ready(false, f.w.now))
		}
		f.sync(h.name, p.Name)
	}
}

// leave takes the node out of the cluster, with whatever runs there.
func (f *fleet) leave(h *host) {
	h.here, h.up = false, false
	f.w.store.removeNode(h.name)
	f.w.collectLater(h.name)
}

// die stops a machine. Its node stays, and is found unreachable after a while.
func (f *fleet) die(h *host) {
	h.up = false
	life := h.life
	f.w.in(nodeGrace, func() {
		if h.here && !h.up && h.life == life {
			f.unreachable(h)
		}
	})
}

// unreachable is what the node health controller does.
func (f *fleet) unreachable(h *host) {
	f.w.say(h.name, "is unreachable")
	f.taint(h, corev1.TaintNodeUnreachable, corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute)
	for _, p := range slices.Clone(f.w.store.onNode[h.name]) {
		if isReady(p) {
			f.w.store.changePod(p.Name, p.UID, ready(false, f.w.now))
		}
	}
}

func (f *fleet) revive(h *host) {
	if !h.here || h.up {
		return
	}
	f.w.say(h.name, "is back")
	f.taint(h, corev1.TaintNodeUnreachable)
	f.boot(h)
}

// taint replaces the node's taints of that key.
func (f *fleet) taint(h *host, key string, effects ...corev1.TaintEffect) {
	was := f.w.store.nodes[h.name]
	n := *was
	n.Spec.Taints = slices.DeleteFunc(slices.Clone(was.Spec.Taints), func(t corev1.Taint) bool { return t.Key == key })
	for _, e := range effects {
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Effect: e})
	}
	if len(n.Spec.Taints)+len(was.Spec.Taints) > 0 {
		f.w.store.setNode(&n)
	}
}

func (f *fleet) label(h *host, key, value string) {
	n := *f.w.store.nodes[h.name]
	n.Labels = maps.Clone(n.Labels)
	n.Labels[key] = value
	f.w.store.setNode(&n)
}

// later runs g unless the machine stops or the pod is replaced before.
func (f *fleet) later(d time.Duration, h *host, p *corev1.Pod, g func(*corev1.Pod)) {
	life := h.life
	f.w.in(d, func() {
		now := f.w.store.pods[p.Name]
		if h.up && h.life == life && now != nil && now.UID == p.UID {
			g(now)
		}
	})
}

// sync looks at one pod of a machine and starts what it needs.
func (f *fleet) sync(node, name string) {
	h, p := f.hosts[node], f.w.store.pods[name]
	switch {
	case h == nil || !h.here || !h.up || p == nil || p.Spec.NodeName != node:
	case p.DeletionTimestamp != nil:
		f.later(f.w.between(maxGrace/20, maxGrace), h, p, func(p *corev1.Pod) {
			f.w.say(node, "%s is gone", p.Name)
			delete(h.started, p.UID)
			f.w.store.removePod(p.Name, p.UID)
		})
	case h.started[p.UID] != h.life && !ended(p):
		if h.started == nil {
			h.started = map[types.UID]int{}
		}
		h.started[p.UID] = h.life
		f.start(h, p)
	}
}

// start admits a pod, as a kubelet does, and brings it up.
func (f *fleet) start(h *host, p *corev1.Pod) {
	if !f.w.truth.hasRoom(p) {
		f.w.say(h.name, "has no room for %s: it fails", p.Name)
		f.w.store.changePod(p.Name, p.UID, failed)
		return
	}
	fails := f.w.chance(f.w.faults().failing)
	f.later(f.w.about(f.w.o.PodStart), h, p, func(p *corev1.Pod) {
		switch {
		case p.DeletionTimestamp != nil || ended(p):
		case fails:
			f.w.mishap("pod failed at its start")
			f.w.truth.excuse(h.name)
			f.w.say(h.name, "%s fails", p.Name)
			f.w.store.changePod(p.Name, p.UID, failed)
		default:
			is := p.Annotations[revisionMark] != brokenRevision
			f.w.say(h.name, "%s runs, ready %v", p.Name, is)
			f.w.store.changePod(p.Name, p.UID, ready(is, f.w.now))
		}
	})
}

// crash makes a pod not ready for a while, as a container that restarts does.
func (f *fleet) crash(h *host, p *corev1.Pod) {
	f.w.store.changePod(p.Name, p.UID, ready(false, f.w.now))
	f.later(f.w.about(f.w.o.PodStart), h, p, func(p *corev1.Pod) {
		if p.DeletionTimestamp == nil && !ended(p) && p.Annotations[revisionMark] != brokenRevision {
			f.w.store.changePod(p.Name, p.UID, ready(true, f.w.now))
		}
	})
}

// scheduler binds the pods that a controller leaves to it, as its own view of the room allows.
type scheduler struct {
	w       *world
	view    *view
	ledger  *placement.Ledger
	waiting map[string]map[string]*corev1.Pod // by node and name
}

func newScheduler(w *world) *scheduler {
	s := &scheduler{w: w, ledger: placement.NewLedger(), waiting: map[string]map[string]*corev1.Pod{}}
	s.view = newView(w, s.see)
	return s
}

func (s *scheduler) see(x change) {
	switch {
	case x.ds != nil:
	case x.node != nil && x.gone:
		s.ledger.RemoveNode(x.node.Name)
	case x.node != nil:
		s.ledger.SetNode(placement.NodeOf(x.node))
		s.try(x.node.Name)
	default:
		s.seePod(x.pod, x.gone)
	}
}

func (s *scheduler) seePod(p *corev1.Pod, gone bool) {
	node := targetOf(p)
	if node == "" {
		return
	}
	if gone {
		s.ledger.Remove(placement.PodKey(p.Namespace, p.Name))
	} else {
		s.ledger.SetPod(p)
	}
	if !gone && p.Spec.NodeName == "" && p.DeletionTimestamp == nil {
		if s.waiting[node] == nil {
			s.waiting[node] = map[string]*corev1.Pod{}
		}
		s.waiting[node][p.Name] = p
	} else if delete(s.waiting[node], p.Name); len(s.waiting[node]) == 0 {
		delete(s.waiting, node)
	}
	s.try(node)
}

// try binds what waits for a node and fits.
func (s *scheduler) try(node string) {
	waiting := s.waiting[node]
	if len(waiting) == 0 {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(waiting)) {
		p := waiting[name]
		demand := placement.DemandOf(&p.Spec)
		if !s.ledger.Fits(node, demand) {
			continue
		}
		s.ledger.Reserve(placement.PodKey(p.Namespace, name), node, demand)
		delete(waiting, name)
		s.w.in(s.w.travel(), func() {
			if now := s.w.store.pods[name]; now != nil && now.UID == p.UID && now.Spec.NodeName == "" {
				s.w.say(node, "the scheduler binds %s", name)
				s.w.store.changePod(name, p.UID, func(p *corev1.Pod) { p.Spec.NodeName = node })
			}
		})
	}
}
