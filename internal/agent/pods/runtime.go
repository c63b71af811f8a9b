package pods

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/agent/cri"
	"github.com/everynode/everynode/internal/agent/manifests"
	"github.com/everynode/everynode/internal/agent/metrics"
	"github.com/everynode/everynode/internal/sleep"
)

// inventory is what the runtime has of this node's pods.
type inventory struct {
	sandboxes  map[types.UID][]*runtimeapi.PodSandbox
	containers map[types.UID][]*runtimeapi.Container
}

// inventory lists the runtime's sandboxes and containers that this agent has made.
func (m *Manager) inventory(ctx context.Context) (inventory, error) {
	inv := inventory{map[types.UID][]*runtimeapi.PodSandbox{}, map[types.UID][]*runtimeapi.Container{}}
	ctx = cri.Quiet(ctx)
	ours := map[string]string{nodeLabel: m.o.NodeName}
	sandboxes, err := m.o.Runtime.ListPodSandbox(ctx, &runtimeapi.PodSandboxFilter{LabelSelector: ours})
	if err != nil {
		return inv, err
	}
	containers, err := m.o.Runtime.ListContainers(ctx, &runtimeapi.ContainerFilter{LabelSelector: ours})
	if err != nil {
		return inv, err
	}
	for _, s := range sandboxes {
		uid := m.uidOf(s.Labels)
		inv.sandboxes[uid] = append(inv.sandboxes[uid], s)
	}
	for _, c := range containers {
		uid := m.uidOf(c.Labels)
		inv.containers[uid] = append(inv.containers[uid], c)
	}
	return inv, nil
}

func (i inventory) has(uid types.UID) bool { return len(i.sandboxes[uid])+len(i.containers[uid]) > 0 }

// uids are all pods of the inventory.
func (i inventory) uids() map[types.UID]bool {
	out := map[types.UID]bool{}
	for uid := range i.sandboxes {
		out[uid] = true
	}
	for uid := range i.containers {
		out[uid] = true
	}
	delete(out, "")
	return out
}

// static tells that a pod was run as a static one, and the file that it came from, if that is known.
func (i inventory) static(uid types.UID) (file string, static bool) {
	for _, s := range i.sandboxes[uid] {
		if s.Labels[staticLabel] != "" {
			file, static = s.Annotations[manifests.FileAnnotation], true
		}
	}
	for _, c := range i.containers[uid] {
		static = static || c.Labels[staticLabel] != ""
	}
	return file, static
}

// orphans are the pods of the inventory that came from the API and are not listed, as far as the
// runtime knows them.
func (i inventory) orphans(listed map[types.UID]bool) map[types.UID]*corev1.Pod {
	out := map[types.UID]*corev1.Pod{}
	for uid := range i.uids() {
		if _, static := i.static(uid); !listed[uid] && !static {
			out[uid] = restored(i.sandboxes[uid], i.containers[uid])
		}
	}
	return out
}

// digest tells whether anything of a pod has changed in the runtime.
func (i inventory) digest(uid types.UID) string {
	var parts []string
	for _, s := range i.sandboxes[uid] {
		parts = append(parts, fmt.Sprintf("s%s%d", s.Id, s.State))
	}
	for _, c := range i.containers[uid] {
		parts = append(parts, fmt.Sprintf("c%s%d", c.Id, c.State))
	}
	slices.Sort(parts)
	return strings.Join(parts, " ")
}

// relist compares the runtime's lists with those before, now and then, and makes
// the workers of pods that differ look for themselves. It is the safety net under
// followExits, and all there is where the runtime has no events. No pods, no lists.
func (m *Manager) relist(ctx context.Context) {
	before := map[types.UID]string{}
	var relisted time.Time
	for {
		interval := m.o.Relist
		if m.owners.live.Load() {
			interval *= 10
		}
		sleep.For(ctx, interval)
		if ctx.Err() != nil {
			return
		}
		began := time.Now()
		m.looked.Store(&began)
		workers := m.all()
		if len(workers) == 0 {
			clear(before)
			continue
		}
		inv, err := m.inventory(ctx)
		if err != nil {
			continue // the workers find out by themselves
		}
		metrics.Relisted(relisted, began, time.Now())
		relisted = began
		now := map[types.UID]string{}
		for _, w := range workers {
			now[w.uid] = inv.digest(w.uid)
			if old, known := before[w.uid]; !known || old != now[w.uid] {
				w.post(func() { w.stale = true })
			}
		}
		before = now
	}
}

// stuckAfter is how long a look at the runtime may take before the agent counts as unhealthy: more
// than the longest call.
const stuckAfter = 3 * time.Minute

// Healthy says whether the pods are being looked after.
func (m *Manager) Healthy() error {
	if looked := m.looked.Load(); looked != nil && m.now().Sub(*looked) > stuckAfter {
		return fmt.Errorf("the runtime's containers were last looked at %s ago: it does not answer", m.now().Sub(*looked).Round(time.Second))
	}
	return nil
}

// owners finds the worker that a container or sandbox belongs to. An exit may be
// announced before its container is known here, and is then kept for a while.
type owners struct {
	// live: announcements are being received.
	live atomic.Bool

	mu      sync.Mutex
	workers map[string]*worker
	// early are exits of containers yet unknown.
	early map[string]time.Time
}

// keepEarly is how long an exit waits for its container to become known.
const keepEarly = time.Minute

// set makes ids the worker's, in place of those it had, and returns those that
// have been announced as ended before.
func (o *owners) set(w *worker, ids []string) (ended []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.workers == nil {
		o.workers, o.early = map[string]*worker{}, map[string]time.Time{}
	}
	for id, owner := range o.workers {
		if owner == w && !slices.Contains(ids, id) {
			delete(o.workers, id)
		}
	}
	for _, id := range ids {
		o.workers[id] = w
		if _, early := o.early[id]; early {
			delete(o.early, id)
			ended = append(ended, id)
		}
	}
	return ended
}

func (o *owners) drop(w *worker) { o.set(w, nil) }

// exited passes an announcement on.
func (o *owners) exited(id string, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if w := o.workers[id]; w != nil {
		w.post(func() { w.exited(id) })
		return
	}
	if o.early == nil {
		o.workers, o.early = map[string]*worker{}, map[string]time.Time{}
	}
	for old, at := range o.early {
		if now.Sub(at) > keepEarly {
			delete(o.early, old)
		}
	}
	o.early[id] = now
}

// followExits receives containerd's announcements, as long as there are any.
func (m *Manager) followExits(ctx context.Context) {
	if m.o.Endpoint == "" {
		return
	}
	m.exits.prepare(ctx)
	for wait := firstWait; ctx.Err() == nil; wait = min(2*wait, maxWait) {
		began := time.Now()
		err := cri.Exits(ctx, m.o.Endpoint, func() {
			m.owners.live.Store(true)
			for _, w := range m.all() { // what ended before is found by looking
				w.post(func() { w.stale = true })
			}
		}, func(exit cri.Exit) {
			m.exits.note(ctx, exit)
			m.owners.exited(exit.ID, m.now())
		})
		m.owners.live.Store(false)
		if ctx.Err() != nil {
			return
		}
		if cri.IsUnimplemented(err) {
			klog.FromContext(ctx).Info("The runtime announces no exits; listing its containers instead", "interval", m.o.Relist)
			return
		}
		if time.Since(began) > maxWait {
			wait = firstWait
		}
		klog.FromContext(ctx).V(1).Info("Exits of containers are not announced, trying again", "err", err, "wait", wait)
		sleep.For(ctx, wait)
	}
}
