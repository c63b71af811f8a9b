package pods

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/agent/cri"
	"github.com/everynode/everynode/internal/agent/images"
	"github.com/everynode/everynode/internal/agent/manifests"
	"github.com/everynode/everynode/internal/agent/metrics"
	"github.com/everynode/everynode/internal/agent/probes"
	"github.com/everynode/everynode/internal/agent/volumes"
	"github.com/everynode/everynode/internal/decide/podlife"
)

// Waits of the worker where something outside is expected to change.
const (
	retryObserve = 200 * time.Millisecond
	// expectExit is how long an exit that containerd has announced may take to show
	// in its CRI plugin.
	expectExit = 30 * time.Second
	// retryNetwork is how often to ask whether the pod network has come.
	retryNetwork = 100 * time.Millisecond
)

// worker runs one pod. The fields from facts on belong to the goroutine of run.
type worker struct {
	m    *Manager
	uid  types.UID
	mail mailbox
	// shown is what others may see of the pod.
	shown atomic.Pointer[view]
	// leaving: what it asks for is another pod's, for it was rejected or makes room.
	leaving atomic.Bool
	// ended is closed when nothing of the pod runs any more, its volumes are down, and the API knows.
	ended     chan struct{}
	closeOnce sync.Once

	facts podlife.Facts
	// stale: the runtime may have changed in ways that the facts do not show.
	stale bool
	// blind: it may run since before this agent did, and the runtime has yet to be asked.
	blind bool
	// exits are containers whose end was announced, and when.
	exits map[string]time.Time
	// starting: counted in the crowd.
	starting bool
	// ending as the last plan said. startCtx ends with it.
	ending    bool
	startCtx  context.Context
	stopStart context.CancelFunc

	vols   map[string]volumes.Volume
	images map[string]images.Image
	probes map[string]context.CancelFunc
	report reporter
	// static pods come from a file of this node; the API has a mirror of them. name is the full one.
	// withdrawn says that the file is gone, rejected that the node did not admit the pod; the
	// manager's mutex guards both.
	static              bool
	name                string
	withdrawn, rejected bool
	mirror              mirror
	// recalled: the pod is as it was last known, nothing was heard of it since the start. offline,
	// which the manager's mutex guards: nor was anything heard of all.
	recalled, offline bool
	// networkError was announced last.
	networkError string
	// resized: the pod's resources were changed before the agent started.
	resized bool
	// allocation is guarded by the manager's mutex.
	allocation allocation
}

// mailbox takes what others have to tell the worker.
type mailbox struct {
	mu    sync.Mutex
	queue []func()
	bell  chan struct{}
}

func newWorker(m *Manager, pod *corev1.Pod) *worker {
	w := &worker{
		m: m, uid: pod.UID, name: manifests.FullName(pod), ended: make(chan struct{}),
		exits: map[string]time.Time{}, images: map[string]images.Image{}, probes: map[string]context.CancelFunc{},
		facts: podlife.Facts{
			Pod: pod, Seen: m.now(),
			Images: map[string]podlife.ImageReady{}, Probes: map[string]podlife.Probe{},
			InFlight: map[string]podlife.Step{}, Failures: map[string]podlife.Failure{}, Again: map[string]podlife.Again{}, Hooked: map[string]bool{},
		},
	}
	w.allocation = allocation{granted: podlife.AllocationOf(pod), desired: pod}
	w.mail.bell = make(chan struct{}, 1)
	w.shown.Store(&view{pod: pod})
	return w
}

// post has f run in the worker's goroutine, followed by a decision.
func (w *worker) post(f func()) {
	w.mail.mu.Lock()
	w.mail.queue = append(w.mail.queue, f)
	w.mail.mu.Unlock()
	select {
	case w.mail.bell <- struct{}{}:
	default:
	}
}

func (w *worker) read() {
	w.mail.mu.Lock()
	queue := w.mail.queue
	w.mail.queue = nil
	w.mail.mu.Unlock()
	for _, f := range queue {
		f()
	}
}

// run decides and performs until the pod is gone or ctx ends.
func (w *worker) run(ctx context.Context) {
	ctx = klog.NewContext(ctx, klog.FromContext(ctx).WithValues("pod", klog.KObj(w.facts.Pod), "uid", w.uid))
	w.startCtx, w.stopStart = context.WithCancel(cri.Quiet(ctx))
	defer w.stopStart()
	defer w.leave(w.m.crowd)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.mail.bell:
		case <-timer.C:
		}
		w.read()
		wait, done := w.turn(ctx)
		if done {
			return
		}
		timer.Reset(wait)
	}
}

// turn is one round: look if need be, decide, begin what is to be done.
func (w *worker) turn(ctx context.Context) (wait time.Duration, done bool) {
	wait = time.Hour
	if w.stale || len(w.exits) > 0 {
		if err := w.observe(ctx); err != nil {
			klog.FromContext(ctx).V(2).Info("Runtime does not answer", "err", err)
			if w.blind { // what was reported stands
				return retryObserve, false
			}
			wait = retryObserve
		}
	}
	w.facts.HostIPs = w.m.o.NodeFacts().HostIPs
	w.facts.Crowded, w.facts.Written = w.m.crowd.crowded(), w.report.at
	w.checkNetwork()
	now := w.m.now()
	plan := podlife.Decide(w.facts, now)
	w.note(plan, now)
	if !w.stale { // steps follow only from what is known to be so
		for _, step := range plan.Steps {
			w.begin(ctx, step, plan.Status)
		}
	}
	w.join(w.m.crowd)
	w.watchProbes(ctx, plan)
	again := w.sendReport(ctx, plan, now)
	mirrorAgain := w.keepMirror(ctx, now)
	if plan.Done || plan.Ending && w.facts.TornDown && !w.owes(plan) {
		w.closeOnce.Do(func() { close(w.ended) })
	}
	if plan.Done && !w.stale {
		return 0, true
	}
	for _, at := range []time.Time{plan.Wake, again, mirrorAgain} {
		if !at.IsZero() {
			wait = min(wait, at.Sub(now))
		}
	}
	if len(w.exits) > 0 {
		wait = min(wait, w.nextExit(now))
	}
	if w.facts.NetworkError != "" {
		wait = min(wait, retryNetwork)
	}
	return max(wait, 0), false
}

// note remembers the plan for the next decision, and shows it to others.
func (w *worker) note(plan podlife.Plan, now time.Time) {
	if plan.Ending && !w.ending {
		w.ending = true
		w.stopStart()
	}
	if plan.Ending && w.facts.EndingSince.IsZero() {
		w.facts.EndingSince = now
	}
	before := w.facts.Reported
	if before == nil {
		before = &w.facts.Pod.Status
	}
	if phase := plan.Status.Phase; phase != before.Phase && (phase == corev1.PodFailed || phase == corev1.PodSucceeded) {
		w.m.o.Offline.Drop(w.uid)
	}
	w.m.announce(w.facts.Pod, before, &plan.Status)
	if before.Phase == corev1.PodPending && plan.Status.Phase == corev1.PodRunning {
		metrics.PodRuns(w.facts.Seen, w.facts.Pod.CreationTimestamp.Time, now)
	}
	w.facts.Reported = &plan.Status
	w.show(&plan.Status)
}

// checkNetwork asks for the pod network, as long as the pod has yet to join it.
func (w *worker) checkNetwork() {
	w.facts.NetworkError = ""
	if w.facts.Pod.Spec.HostNetwork || w.ending || slices.ContainsFunc(w.facts.Sandboxes, func(s podlife.Sandbox) bool { return s.Ready }) {
		return
	}
	if err := w.m.o.NetworkReady(); err != nil {
		w.facts.NetworkError = err.Error()
		if w.networkError != err.Error() {
			w.networkError = err.Error()
			w.m.event(w.facts.Pod, "", corev1.EventTypeWarning, "NetworkNotReady", "network is not ready: "+err.Error())
		}
	}
}

// setPod takes a newer version of the pod.
func (w *worker) setPod(pod *corev1.Pod) {
	old := w.facts.Pod
	if newerVersion(old, pod) {
		return
	}
	if w.recalled { // its status goes on from what the API has, as after any other start
		w.recalled, w.facts.Reported = false, nil
	}
	w.adopt(pod)
	if ended(pod) && !ended(old) {
		w.m.retryResizes()
	}
	if !apiequality.Semantic.DeepEqual(old.Labels, pod.Labels) || !apiequality.Semantic.DeepEqual(old.Annotations, pod.Annotations) {
		w.m.o.Volumes.Update(pod)
	}
	if len(old.Spec.EphemeralContainers) != len(pod.Spec.EphemeralContainers) {
		w.facts.VolumesReady = false // new ones may mount what none did before
	}
}

// watchProbes runs the probes of the containers that the plan lists, and of no others.
func (w *worker) watchProbes(ctx context.Context, plan podlife.Plan) {
	for id, stop := range w.probes {
		if !slices.Contains(plan.Probe, id) {
			stop()
			delete(w.probes, id)
			delete(w.facts.Probes, id)
		}
	}
	for _, id := range plan.Probe {
		if _, running := w.probes[id]; !running {
			w.startProbes(ctx, id)
		}
	}
}

// forgetProbes drops the counts of a pod that is gone.
func forgetProbes(pod *corev1.Pod) {
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if probes.Has(&list[i]) {
				metrics.Probed{Namespace: pod.Namespace, Pod: pod.Name, UID: pod.UID, Container: list[i].Name}.Forget()
			}
		}
	}
}

func (w *worker) startProbes(ctx context.Context, id string) {
	var obs podlife.Container
	for _, c := range w.facts.Containers {
		if c.ID == id {
			obs = c
		}
	}
	pod := w.facts.Pod
	c := containerOf(pod, obs.Name)
	if c == nil || !probes.Has(c) {
		return
	}
	ctx, w.probes[id] = context.WithCancel(cri.Quiet(ctx))
	target := probes.Target{Pod: pod, Container: c, ID: id, IP: firstOf(w.podIPs()), Started: obs.Started}
	resume := w.resumed(c, id)
	w.facts.Probes[id] = resume
	w.m.running.Go(func() {
		w.m.prober.Watch(ctx, target, resume, func(p podlife.Probe) {
			w.post(func() {
				if ctx.Err() != nil {
					return
				}
				if w.ending {
					p.Unhealthy = false
				}
				w.facts.Probes[id] = p
			})
		}, func(eventType, reason, message string) {
			if ctx.Err() == nil {
				w.m.event(pod, c.Name, eventType, reason, message)
			}
		})
	})
}

// resumed is the state that the probes of a container begin with: what was reported of it, if it
// ran before this agent did.
func (w *worker) resumed(c *corev1.Container, id string) podlife.Probe {
	p := podlife.Probe{Started: c.StartupProbe == nil, Ready: c.ReadinessProbe == nil}
	for _, s := range allStatuses(w.facts.Reported) {
		if s.Name == c.Name && s.ContainerID == "containerd://"+id {
			p.Started, p.Ready = p.Started || isTrue(s.Started), p.Ready || s.Ready
		}
	}
	return p
}

func (w *worker) podIPs() []string {
	if w.facts.Pod.Spec.HostNetwork {
		return w.m.o.NodeFacts().HostIPs
	}
	for _, s := range w.facts.Sandboxes {
		if s.Ready {
			return s.IPs
		}
	}
	return nil
}
