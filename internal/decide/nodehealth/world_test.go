package nodehealth

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// world is an API with nodes, leases and pods, their agents, and a Set that is told everything at once.
type world struct {
	set     *Set
	now     time.Time
	version int
	nodes   map[string]*corev1.Node
	pods    map[string]*corev1.Pod
	renewed map[string]time.Time
	alive   map[string]bool
	refuse  bool // writes fail
	log     []string
	start   time.Time
	options Options
	hasty   string // what should not have been done
	leaders int
	emptied int    // nodes that got a NoExecute taint
	only    string // what a line must have to be shown
}

const renewEvery = 10 * time.Second

func newWorld(o Options) *world {
	w := &world{
		now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), nodes: map[string]*corev1.Node{}, pods: map[string]*corev1.Pod{},
		renewed: map[string]time.Time{}, alive: map[string]bool{}, options: o,
	}
	w.start = w.now
	w.restart()
	return w
}

// restart has another Set take over, which is told all there is.
func (w *world) restart() {
	w.leaders++
	w.options.Pods = w.podsOn
	w.set = New(w.options)
	for _, name := range slices.Sorted(maps.Keys(w.nodes)) {
		w.set.SetNode(w.nodes[name], w.now)
	}
	for name, at := range w.renewed {
		w.set.Renewed(name, at, w.now)
	}
	for _, p := range w.pods {
		w.set.SetPod(p, w.now)
	}
}

func (w *world) podsOn(node string) []*corev1.Pod {
	var on []*corev1.Pod
	for _, p := range w.pods {
		if p.Spec.NodeName == node {
			on = append(on, p)
		}
	}
	return on
}

func (w *world) changeNode(name string, f func(*corev1.Node)) *corev1.Node {
	n := w.nodes[name].DeepCopy()
	if n == nil {
		n = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-" + name + strconv.Itoa(w.version)), CreationTimestamp: metav1.NewTime(w.now)}}
		n.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}} // as admission does
	}
	if f != nil {
		f(n)
	}
	w.version++
	n.ResourceVersion = strconv.Itoa(w.version)
	w.nodes[name] = n
	return n
}

// report is what a node's agent writes.
func (w *world) report(name string, change func(*corev1.Node)) {
	w.set.SetNode(w.changeNode(name, func(n *corev1.Node) {
		change(n)
		for i := range n.Status.Conditions {
			n.Status.Conditions[i].LastHeartbeatTime = metav1.NewTime(w.now)
		}
	}), w.now)
}

func setCondition(kind corev1.NodeConditionType, status corev1.ConditionStatus, reason string, now time.Time) func(*corev1.Node) {
	return func(n *corev1.Node) {
		c := condition(n, kind)
		if c == nil {
			n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: kind})
			c = condition(n, kind)
		}
		if c.Status != status {
			c.LastTransitionTime = metav1.NewTime(now)
		}
		c.Status, c.Reason = status, reason
	}
}

func (w *world) becomes(name string, ready corev1.ConditionStatus) {
	w.report(name, func(n *corev1.Node) {
		for _, kind := range vouched[1:] {
			setCondition(kind, corev1.ConditionFalse, "Enough", w.now)(n)
		}
		setCondition(corev1.NodeReady, ready, "Kubelet", w.now)(n)
	})
}

func (w *world) renew(name string) {
	w.renewed[name] = w.now
	w.set.Renewed(name, w.now, w.now)
}

func (w *world) setPod(p *corev1.Pod) {
	w.pods[p.Name] = p
	w.set.SetPod(p, w.now)
}

// pod makes a ready pod; seconds is how long it tolerates not-ready, unreachable and maintenance: "-" not at all.
func (w *world) pod(name, node, seconds string) *corev1.Pod {
	w.version++
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ops", Name: name, UID: types.UID("uid-" + name + strconv.Itoa(w.version))},
		Spec:       corev1.PodSpec{NodeName: node},
		Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}
	if seconds == "-" {
		return p
	}
	for _, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable, "maintenance"} {
		t := corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute}
		if s, err := strconv.ParseInt(seconds, 10, 64); err == nil {
			t.TolerationSeconds = ptr.To(s)
		}
		p.Spec.Tolerations = append(p.Spec.Tolerations, t)
	}
	return p
}

// failer is a testing.T or a rapid.T.
type failer interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// wait lets time pass: agents renew, and the Set is asked whenever it wants to be.
func (w *world) wait(t failer, d time.Duration) {
	t.Helper()
	end := w.now.Add(d)
	for range 100_000 {
		a := w.set.Next(w.now, 1000)
		w.perform(&a)
		if a.Len() > 0 {
			continue
		}
		next := w.now.Truncate(renewEvery).Add(renewEvery)
		if !a.WakeUp.IsZero() && a.WakeUp.Before(next) {
			next = a.WakeUp
			if !next.After(w.now) {
				t.Fatalf("woken at %v for nothing", w.now.Sub(w.start))
			}
		}
		if next.After(end) {
			w.now = end
			return
		}
		w.now = next
		if w.now.Equal(w.now.Truncate(renewEvery)) {
			for _, name := range slices.Sorted(maps.Keys(w.alive)) {
				w.renew(name)
			}
		}
	}
	t.Fatal("no end")
}

func (w *world) say(format string, args ...any) {
	if line := fmt.Sprintf(format, args...); strings.Contains(line, w.only) {
		w.log = append(w.log, fmt.Sprintf("%6s  ", w.now.Sub(w.start).Round(time.Second))+line)
	}
}

// perform does what was asked for, and reports and shows it.
func (w *world) perform(a *Actions) {
	if a.Fleet != nil {
		w.say("fleet: %s, %d ready, %d not", a.Fleet.State, a.Fleet.Ready, a.Fleet.NotReady)
	}
	for i := range a.Statuses {
		w.performStatus(&a.Statuses[i])
	}
	for i := range a.Taintings {
		w.performTainting(&a.Taintings[i])
	}
	for _, p := range a.Unready {
		w.performPod(p, "not ready any more", func(pod *corev1.Pod) { pod.Status.Conditions[0].Status = corev1.ConditionFalse })
	}
	for _, p := range a.Evictions {
		w.performPod(p, "evict", func(pod *corev1.Pod) { pod.DeletionTimestamp = &metav1.Time{Time: w.now} })
	}
	for _, p := range a.Reprieves {
		w.say("%s: may stay (%s)", p.Name, p.Reason)
	}
}

func (w *world) write(name string, uid types.UID, version string, f func(*corev1.Node)) {
	n := w.nodes[name]
	if w.refuse || n == nil || n.UID != uid || n.ResourceVersion != version {
		w.say("%s: write refused", name)
		w.set.Failed(name, uid, w.now)
		return
	}
	w.set.Written(w.changeNode(name, f), w.now)
}

func (w *world) performStatus(x *Status) {
	w.say("%s: %d conditions unknown, Ready for %s (%s since %s)", x.Node, len(x.Conditions), x.Conditions[0].Reason, x.Reason, x.LastSign.Sub(w.start).Round(time.Second))
	w.write(x.Node, x.UID, x.Version, func(n *corev1.Node) {
		for _, c := range x.Conditions {
			if old := condition(n, c.Type); old != nil {
				*old = c
			} else {
				n.Status.Conditions = append(n.Status.Conditions, c)
			}
		}
	})
}

func (w *world) performTainting(x *Tainting) {
	var what []string
	for sign, taints := range map[string][]corev1.Taint{"+": x.Added, "-": x.Removed} {
		for _, t := range taints {
			what = append(what, sign+strings.TrimPrefix(t.ToString(), "node.kubernetes.io/"))
		}
	}
	for k, v := range x.Labels {
		what = append(what, k+"="+v)
	}
	slices.Sort(what)
	w.say("%s: %s (%s)", x.Node, strings.Join(what, " "), x.Reason)
	w.watchHaste(x)
	w.write(x.Node, x.UID, x.Version, func(n *corev1.Node) {
		n.Spec.Taints = x.Taints
		for k, v := range x.Labels {
			if n.Labels == nil {
				n.Labels = map[string]string{}
			}
			n.Labels[k] = v
		}
	})
}

func (w *world) performPod(x Pod, how string, f func(*corev1.Pod)) {
	w.say("%s: %s (%s)", x.Name, how, x.Reason)
	if w.refuse {
		w.set.PodFailed(x, w.now)
		return
	}
	w.set.PodDone(x)
	if p := w.pods[x.Name]; p != nil && p.UID == x.UID {
		p = p.DeepCopy()
		f(p)
		w.setPod(p)
	}
}

// watchHaste notes when a node is emptied that should not be, or not yet.
func (w *world) watchHaste(x *Tainting) {
	n := w.nodes[x.Node]
	if n == nil || n.ResourceVersion != x.Version || hasOurNoExecute(n) || !hasOurNoExecute(&corev1.Node{Spec: corev1.NodeSpec{Taints: x.Added}}) {
		return
	}
	if !w.refuse {
		w.emptied++
	}
	ready := w.set.fleet.Ready
	allowed := w.leaders + int(w.now.Sub(w.start)/(10*time.Second))
	switch {
	case readiness(n) == corev1.ConditionUnknown && w.now.Sub(w.renewed[x.Node]) < DefaultGracePeriod:
		w.hasty = x.Node + " renews its lease, and is emptied"
	case ready == 0:
		w.hasty = x.Node + " is emptied while no node is ready"
	case w.emptied > allowed:
		w.hasty = fmt.Sprintf("%d nodes have been emptied, %d may be", w.emptied, allowed)
	}
}
