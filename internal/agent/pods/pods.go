package pods

import (
	"context"
	"path/filepath"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/agent/cgroups"
	"github.com/everynode/everynode/internal/agent/images"
	"github.com/everynode/everynode/internal/agent/objects"
	"github.com/everynode/everynode/internal/agent/probes"
	"github.com/everynode/everynode/internal/decide/podlife"
)

// Manager runs this node's pods.
type Manager struct {
	o       Options
	images  *images.Puller
	cgroups *cgroups.Tree
	prober  *probes.Prober
	memory  int64
	// apparmor: the kernel enforces its profiles.
	apparmor bool
	now      func() time.Time
	// looked is when relist last went round.
	looked atomic.Pointer[time.Time]
	starts *starts
	crowd  *crowd
	// owners finds the worker of a container.
	owners owners
	// exits are how containers ended.
	exits exitNotes
	// running are all goroutines of workers and their steps.
	running sync.WaitGroup

	mu      sync.Mutex
	workers map[types.UID]*worker
	static  statics
	server  server
	// finished are pods whose workers have ended; a late event must not wake them.
	finished map[types.UID]bool
}

// New checks the options and returns a Manager that does nothing until Run.
func New(o Options) (*Manager, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	puller, err := images.New(images.Options{Images: o.Images, Secrets: o.Objects, Provenance: o.Provenance, MaxPulls: o.MaxPulls})
	if err != nil {
		return nil, err
	}
	m := &Manager{
		o: o, exits: exitNotes{filepath.Join(filepath.Dir(o.RootDir), "exits")}, images: puller, prober: &probes.Prober{Exec: o.Runtime.ExecSync}, memory: memoryCapacity(), apparmor: hostAppArmor(), now: time.Now,
		starts: &starts{most: o.MaxStarts}, crowd: newCrowd(), workers: map[types.UID]*worker{}, finished: map[types.UID]bool{}, static: newStatics(), server: server{away: make(chan struct{})},
	}
	if o.CgroupRoot != "" {
		if m.cgroups, err = cgroups.New(o.CgroupRoot, o.CgroupLimits); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Run watches and runs pods until ctx ends, and then waits for the steps under
// way. It leaves containers running.
func (m *Manager) Run(ctx context.Context) error {
	ctx = klog.NewContext(ctx, klog.FromContext(ctx).WithName("pods"))
	m.running.Go(func() { m.followExits(ctx) })
	m.running.Go(func() { m.relist(ctx) })
	m.running.Go(func() { m.beginStatic(ctx) })
	m.running.Go(func() { m.runOffline(ctx) })
	if n, ok := m.o.Objects.(objects.Notifier); ok {
		defer n.Subscribe(m.objectChanged)()
	}
	m.followPods(ctx)
	m.stopStatic()
	m.running.Wait()
	return nil
}

// Calm is closed while the node does not start many pods at once.
func (m *Manager) Calm() <-chan struct{} { return m.crowd.calmed() }

// objectChanged lets pods of its namespace that failed for want of a ConfigMap or
// Secret try again at once.
func (m *Manager) objectChanged(ref objects.Ref) {
	for _, w := range m.all() {
		if w.shown.Load().pod.Namespace == ref.Namespace {
			w.post(w.retryConfiguration)
		}
	}
}

// retryConfiguration forgets how long ago the steps failed that read objects.
func (w *worker) retryConfiguration() {
	for key, f := range w.facts.Failures {
		if f.Reason == errConfig || f.Reason == string(podlife.SetUpVolumes) {
			f.At = time.Time{}
			w.facts.Failures[key] = f
		}
	}
}

// replace takes the full, consistent list of this node's pods. Workers of pods
// that it lacks are told so; what the runtime has beyond it is taken away.
func (m *Manager) replace(ctx context.Context, list []*corev1.Pod, have inventory) {
	sort.SliceStable(list, func(i, j int) bool {
		a, b := list[i], list[j]
		if !a.CreationTimestamp.Equal(&b.CreationTimestamp) {
			return a.CreationTimestamp.Before(&b.CreationTimestamp)
		}
		return a.UID < b.UID
	})
	listed := map[types.UID]bool{}
	m.mu.Lock()
	defer m.mu.Unlock()
	list = m.takeMirrorsLocked(list)
	for _, pod := range list { // those that run already have the first claim on ports
		listed[pod.UID] = true
		if have.has(pod.UID) {
			m.takeLocked(ctx, pod, have)
		}
	}
	for _, pod := range list {
		m.takeLocked(ctx, pod, have)
	}
	for uid, w := range m.workers {
		if !listed[uid] && !w.static {
			w.post(func() { w.facts.Gone = true })
		}
	}
	for uid := range m.finished {
		if !listed[uid] {
			delete(m.finished, uid)
		}
	}
	m.heardLocked(listed)
	for uid, pod := range have.orphans(listed) {
		if m.workers[uid] == nil {
			klog.FromContext(ctx).Info("Ending a pod that the API does not have", "pod", klog.KObj(pod), "uid", uid)
			w := newWorker(m, pod)
			w.facts.Gone, w.stale, w.blind = true, true, true
			m.startLocked(ctx, w)
		}
	}
	m.sweepLocked(ctx, have)
}

// sweepLocked removes volumes, cgroups and files of pods that ended while the agent was away.
func (m *Manager) sweepLocked(ctx context.Context, have inventory) {
	known := have.uids() // those without a worker belong to a manifest that cannot be read
	for uid := range m.workers {
		known[uid] = true
	}
	m.running.Go(func() {
		isKnown := func(uid types.UID) bool { return known[uid] || m.worker(uid) != nil }
		m.o.Volumes.Orphans(isKnown)
		m.sweepFiles(ctx, isKnown)
		for _, uid := range m.cgroups.Pods() {
			if isKnown(uid) {
				continue
			}
			if err := m.cgroups.Remove(uid); err != nil {
				klog.FromContext(ctx).Error(err, "A cgroup of a pod that is gone is left behind", "uid", uid)
			}
		}
	})
}

// take hands a new or changed pod to its worker.
func (m *Manager) take(ctx context.Context, pod *corev1.Pod) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if isMirror(pod) {
		m.takeMirrorLocked(pod)
		return
	}
	m.takeLocked(ctx, pod, inventory{})
}

func (m *Manager) takeLocked(ctx context.Context, pod *corev1.Pod, have inventory) {
	if pod.Spec.NodeName != m.o.NodeName || m.finished[pod.UID] {
		return
	}
	m.o.Offline.Keep(pod)
	if w := m.workers[pod.UID]; w != nil {
		w.post(func() { w.setPod(pod) })
		return
	}
	w := newWorker(m, pod)
	w.stale = have.has(pod.UID) || pod.Status.StartTime != nil
	w.blind = w.stale
	if w.stale {
		m.recall(w, have.containers[pod.UID])
		w.post(func() { w.setPod(pod) })
	}
	if !w.stale && pod.DeletionTimestamp == nil {
		m.admitLocked(ctx, w)
	}
	m.startLocked(ctx, w)
}

// admittedLocked are the pods that hold ports and resources of this node, but for one.
func (m *Manager) admittedLocked(except *worker) []*corev1.Pod {
	var list []*corev1.Pod
	for _, w := range m.workers {
		if pod := w.shown.Load().pod; w != except && !ended(pod) && !w.leaving.Load() {
			list = append(list, w.allocation.granted.Apply(pod))
		}
	}
	return list
}

func ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

func (m *Manager) startLocked(ctx context.Context, w *worker) {
	m.workers[w.uid] = w
	if r, ok := m.o.Objects.(objects.Registrar); ok && !w.facts.Gone {
		r.Register(w.facts.Pod)
	}
	m.running.Go(func() {
		w.run(ctx)
		if ctx.Err() == nil {
			m.forget(ctx, w)
		}
	})
}

// forget ends a pod of which nothing is left.
func (m *Manager) forget(ctx context.Context, w *worker) {
	m.clean(ctx, w.uid)
	forgetProbes(w.facts.Pod)
	m.owners.drop(w)
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.workers, w.uid)
	m.o.Offline.Drop(w.uid)
	m.retryResizesLocked(nil)
	if r, ok := m.o.Objects.(objects.Registrar); ok {
		r.UnregisterUID(w.uid)
	}
	if w.static {
		m.endedStaticLocked(w)
	} else {
		m.finished[w.uid] = true
	}
	m.retryStaticLocked()
}

// gone is told that the API has deleted the pod.
func (m *Manager) gone(pod *corev1.Pod) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if isMirror(pod) {
		m.goneMirrorLocked(pod)
		return
	}
	delete(m.finished, pod.UID)
	m.o.Offline.Drop(pod.UID)
	if w := m.workers[pod.UID]; w != nil {
		w.post(func() {
			w.setPod(pod)
			w.facts.Gone = true
		})
	}
}

func (m *Manager) worker(uid types.UID) *worker {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.workers[uid]
}

// all are the workers, in no order.
func (m *Manager) all() []*worker {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]*worker, 0, len(m.workers))
	for _, w := range m.workers {
		list = append(list, w)
	}
	return list
}
