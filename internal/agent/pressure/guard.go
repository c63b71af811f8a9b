package pressure

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/ptr"

	"github.com/everynode/everynode/internal/decide/eviction"
	"github.com/everynode/everynode/internal/decide/podlife"
	"github.com/everynode/everynode/internal/sleep"
)

const (
	// lookEvery is how often the node is measured, as often as the kubelet does.
	lookEvery = 10 * time.Second
	// leavePatience is how long an evicted pod may take before the node is measured anew.
	leavePatience = 30 * time.Second
	// reclaimPatience is how long it may take until what was removed shows, looked for every reclaimStep.
	reclaimPatience = 3 * time.Second
	reclaimStep     = 300 * time.Millisecond
	// measureTimeout bounds the measurement of all pods.
	measureTimeout = 30 * time.Second
)

// Machine measures what the node has left.
type Machine interface {
	// Observe measures all signals that it can.
	Observe(ctx context.Context) (eviction.Observations, eviction.Layout)
}

// Pods are this node's.
type Pods interface {
	// Pods with their present status. They are not changed.
	Pods() []*corev1.Pod
	// Evict has a pod leave; ended is closed when it has.
	Evict(uid types.UID, e podlife.Eviction) (ended <-chan struct{})
	// Reclaim removes records of ended containers.
	Reclaim(now bool)
}

// Options of a Guard. All are required but Recorder, Node and Changed.
type Options struct {
	Thresholds []eviction.Threshold
	// Transition is how long a condition outlives its cause, MaxPodGrace bounds the grace periods of
	// softly evicted pods, in seconds.
	Transition  time.Duration
	MaxPodGrace int64

	Machine Machine
	Pods    Pods
	// Usage measures what every pod uses.
	Usage func(ctx context.Context) (*statsapi.Summary, error)
	// DeleteImages removes images that nothing uses.
	DeleteImages func(ctx context.Context) error
	// Recorder gets the events about pods and about Node. Default: none are recorded.
	Recorder record.EventRecorder
	Node     *corev1.ObjectReference
	// Changed is told that the conditions have changed.
	Changed func()
}

// Validate fills in defaults and reports the first required option that is missing.
func (o *Options) Validate() error {
	if o.Machine == nil || o.Pods == nil || o.Usage == nil || o.DeleteImages == nil {
		return errors.New("pressure: Machine, Pods, Usage and DeleteImages must be set")
	}
	if o.Recorder == nil {
		o.Recorder = &record.FakeRecorder{}
	}
	if o.Node == nil {
		o.Node = &corev1.ObjectReference{}
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	return nil
}

// Guard watches over one node.
type Guard struct {
	o       Options
	now     func() time.Time
	monitor *eviction.Monitor // owned by whoever holds looking
	looking sync.Mutex

	mu         sync.Mutex
	observed   bool
	conditions []corev1.NodeConditionType
}

// New checks the options and returns a Guard that does nothing until Run.
func New(o Options) (*Guard, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return &Guard{o: o, now: time.Now, monitor: eviction.NewMonitor(o.Thresholds, o.Transition)}, nil
}

// Run guards the node until ctx ends.
func (g *Guard) Run(ctx context.Context) error {
	ctx = klog.NewContext(ctx, klog.FromContext(ctx).WithName("pressure"))
	for ctx.Err() == nil {
		leaving := g.look(ctx)
		if len(leaving) == 0 {
			sleep.For(ctx, lookEvery)
			continue
		}
		timeout, cancel := context.WithTimeout(ctx, leavePatience)
		for _, ended := range leaving {
			select {
			case <-ended:
			case <-timeout.Done():
			}
		}
		cancel()
	}
	return nil
}

// Conditions that hold, sorted. The first to ask has them measured.
func (g *Guard) Conditions(ctx context.Context) []corev1.NodeConditionType {
	g.mu.Lock()
	observed, conditions := g.observed, g.conditions
	g.mu.Unlock()
	if observed {
		return conditions
	}
	g.looking.Lock()
	defer g.looking.Unlock()
	o, _ := g.o.Machine.Observe(ctx)
	state := g.monitor.Observe(o, g.now())
	g.publish(ctx, state.Conditions)
	return state.Conditions
}

// Refuse says why the node, as it is now, does not take a pod, or nil.
func (g *Guard) Refuse(pod *corev1.Pod) *podlife.Verdict {
	g.mu.Lock()
	defer g.mu.Unlock()
	return eviction.Refuse(pod, g.conditions)
}

// look measures, reports and, if need be, evicts. It returns what is closed as the evicted end.
func (g *Guard) look(ctx context.Context) (leaving []<-chan struct{}) {
	g.looking.Lock()
	defer g.looking.Unlock()
	o, layout := g.o.Machine.Observe(ctx)
	state := g.monitor.Observe(o, g.now())
	g.publish(ctx, state.Conditions)
	pods := active(g.o.Pods.Pods())
	var measured []eviction.Pod
	if slices.ContainsFunc(pods, eviction.Limited) {
		measured = g.measure(ctx, pods)
		for _, e := range layout.OverLimit(measured) {
			leaving = append(leaving, g.evict(ctx, e))
		}
	}
	if len(leaving) > 0 || len(state.Starved) == 0 {
		return leaving
	}
	signal := state.Starved[0].Signal
	klog.FromContext(ctx).Info("The node runs short", "signal", signal, "available", o[signal].Available, "capacity", o[signal].Capacity)
	g.o.Recorder.Eventf(g.o.Node, corev1.EventTypeWarning, "EvictionThresholdMet", "Attempting to reclaim %s", signal.Resource())
	if signal.Disk() && g.reclaim(ctx) {
		return nil
	}
	if measured == nil {
		measured = g.measure(ctx, pods)
	}
	if e := layout.Next(state.Starved, measured, o, g.o.MaxPodGrace); e != nil {
		return append(leaving, g.evict(ctx, *e))
	}
	klog.FromContext(ctx).Info("There is no pod that could be evicted", "signal", signal)
	return nil
}

// active are the pods that have not ended.
func active(pods []*corev1.Pod) []*corev1.Pod {
	return slices.DeleteFunc(slices.Clone(pods), func(p *corev1.Pod) bool {
		return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	})
}

// reclaim removes what no pod needs, and tells whether that was enough.
func (g *Guard) reclaim(ctx context.Context) bool {
	g.o.Pods.Reclaim(true)
	if err := g.o.DeleteImages(ctx); err != nil {
		klog.FromContext(ctx).Error(err, "Images that nothing uses could not be removed")
	}
	for waited := time.Duration(0); ; waited += reclaimStep {
		o, _ := g.o.Machine.Observe(ctx)
		if g.monitor.Resolved(o) {
			klog.FromContext(ctx).Info("The disk has room again, and no pod had to go")
			return true
		}
		if waited >= reclaimPatience || ctx.Err() != nil {
			return false
		}
		sleep.For(ctx, reclaimStep)
	}
}

// measure finds out what pods use. Those that cannot be measured are in the list without it.
func (g *Guard) measure(ctx context.Context, pods []*corev1.Pod) []eviction.Pod {
	ctx, cancel := context.WithTimeout(ctx, measureTimeout)
	defer cancel()
	summary, err := g.o.Usage(ctx)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Pods could not be measured")
	}
	return withUsage(pods, summary)
}

func (g *Guard) evict(ctx context.Context, e eviction.Eviction) <-chan struct{} {
	pod := e.Pod
	klog.FromContext(ctx).Info("Evicting a pod", "pod", klog.KObj(pod), "uid", pod.UID, "grace", e.Grace, "message", e.Message)
	ref := &corev1.ObjectReference{
		APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
	}
	g.o.Recorder.AnnotatedEventf(ref, e.Annotations, corev1.EventTypeWarning, eviction.Reason, "%s", e.Message)
	order := podlife.Eviction{Verdict: podlife.Verdict{Reason: eviction.Reason, Message: e.Message}, Grace: ptr.To(e.Grace)}
	if e.Disruption {
		order.Disruption = e.Message
	}
	return g.o.Pods.Evict(pod.UID, order)
}

// words are the reasons of conditions that hold and do not, as events have them.
var words = map[corev1.NodeConditionType][2]string{
	corev1.NodeMemoryPressure: {"NodeHasInsufficientMemory", "NodeHasSufficientMemory"},
	corev1.NodeDiskPressure:   {"NodeHasDiskPressure", "NodeHasNoDiskPressure"},
	corev1.NodePIDPressure:    {"NodeHasInsufficientPID", "NodeHasSufficientPID"},
}

// publish shows the conditions to others, and tells of changes.
func (g *Guard) publish(ctx context.Context, now []corev1.NodeConditionType) {
	g.mu.Lock()
	before := g.conditions
	g.observed, g.conditions = true, now
	g.mu.Unlock()
	if slices.Equal(before, now) {
		return
	}
	for _, condition := range slices.Sorted(slices.Values([]corev1.NodeConditionType{corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure})) {
		if holds := slices.Contains(now, condition); holds != slices.Contains(before, condition) {
			reason := words[condition][1]
			if holds {
				reason = words[condition][0]
			}
			klog.FromContext(ctx).Info("A node condition has changed", "condition", condition, "holds", holds)
			g.o.Recorder.Eventf(g.o.Node, corev1.EventTypeNormal, reason, "Node %s status is now: %s", g.o.Node.Name, reason)
		}
	}
	if !slices.Contains(now, corev1.NodeDiskPressure) {
		g.o.Pods.Reclaim(false)
	}
	g.o.Changed()
}
