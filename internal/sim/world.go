package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	machine "github.com/everynode/everynode/internal/decide/daemonset"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// Times of a world in which everything works.
const (
	maxWatchDelay = 20 * time.Millisecond
	maxTravel     = 5 * time.Millisecond
	defaultStart  = 3 * time.Second
	maxGrace      = 2 * time.Second
	nodeGrace     = 40 * time.Second // a node is silent so long before it counts as unreachable
	minCollect    = 20 * time.Second // the pod garbage collector's pace
	maxCollect    = 60 * time.Second
	// leaseMargin is from the end of a leader's term to the beginning of the next (internal/controllers/election).
	leaseMargin    = 3 * time.Second
	beforeUpdate   = 10 * time.Second // from the end of the first rollout to the update
	restLimit      = 24 * time.Hour   // when mishaps are over, a world must come to rest in this time,
	restPerNode    = 10 * time.Minute // and this for each node
	revisionMark   = "everynode.io/simulated-revision"
	brokenRevision = "broken"
)

// world is everything there is.
type world struct {
	clock
	o      Options
	rng    *rand.Rand
	store  *store
	fleet  *fleet
	truth  *truth
	leader *controller
	sched  *scheduler

	leaders   int
	quiet     bool             // the mishaps are over
	brownout  time.Time        // until then most writes fail
	revisions map[int64]string // by generation
	templated int              // how many templates users have made

	result     *Result
	transcript transcript
	violation  *Violation
}

// Run lives through one history and says how it went. Its error is about the options, or that ctx ended; a promise
// that was broken is in the result.
func Run(ctx context.Context, o Options) (*Result, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	w := newWorld(o)
	w.begin()
	limit := epoch.Add(o.Duration + restLimit + time.Duration(o.Nodes)*restPerNode)
	for w.violation == nil && w.clock.next() {
		if w.handled%1024 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if w.now.After(limit) {
			w.violate(Converges, nil, "the world does not come to rest: events still happen %v after the mishaps", limit.Sub(epoch.Add(o.Duration)))
		}
	}
	if w.violation == nil {
		w.checkAtRest()
	}
	w.finish()
	return w.result, nil
}

func newWorld(o Options) *world {
	if o.PodStart == 0 {
		o.PodStart = defaultStart
	}
	if o.Parallelism == 0 {
		o.Parallelism = 64
	}
	w := &world{
		o: o, clock: clock{now: epoch}, rng: rand.New(rand.NewPCG(o.Seed, 0x657665726e6f6465)),
		revisions: map[int64]string{},
		result:    newResult(&o),
	}
	w.store = newStore(w)
	w.truth = newTruth(w)
	w.fleet = newFleet(w)
	w.quiet = o.Faults == Faults{} || o.Faults.every == 0
	return w
}

// begin sets the scene: nodes, a leader, a scheduler, and a user who applies the DaemonSet.
func (w *world) begin() {
	ds := stored(w.o.DaemonSet)
	w.store.ds = ds // so that the truth knows the template while nodes come
	w.truth.specChanged()
	for range w.o.Nodes {
		w.fleet.join("")
	}
	w.store.setDaemonSet(ds)
	w.startStep("first rollout")
	w.sched = newScheduler(w)
	w.leader = newController(w)
	if w.quiet {
		return
	}
	w.planMishaps()
	w.in(w.o.Duration/3, w.updateOnce)
	w.in(w.o.Duration, w.calm)
}

// updateOnce is the user's one planned update.
func (w *world) updateOnce() {
	if w.templated == 0 && w.store.ds.Spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		w.update(false)
	}
}

// update changes the template; broken pods never become ready.
func (w *world) update(broken bool) {
	w.templated++
	mark := fmt.Sprint(w.templated + 1)
	if broken {
		mark = brokenRevision
	}
	w.retemplate("update "+mark, func(t *corev1.PodTemplateSpec) {
		if t.Annotations == nil {
			t.Annotations = map[string]string{}
		}
		t.Annotations[revisionMark] = mark
	})
}

func (w *world) retemplate(step string, f func(*corev1.PodTemplateSpec)) {
	ds := w.store.ds.DeepCopy()
	ds.Generation++
	f(&ds.Spec.Template)
	w.say("", "a user changes the template: %s", step)
	w.store.setDaemonSet(ds)
	w.startStep(step)
}

func (w *world) brokenTemplate() bool {
	return w.store.ds.Spec.Template.Annotations[revisionMark] == brokenRevision
}

// revisionOf is the hash of a generation's template.
func (w *world) revisionOf(ds *appsv1.DaemonSet) string {
	hash, known := w.revisions[ds.Generation]
	if !known {
		hash = machine.RevisionHash(&ds.Spec.Template, nil)
		w.revisions[ds.Generation] = hash
	}
	return hash
}

// podStored is the world's answer to a pod's change: its node, the garbage collector and time itself.
func (w *world) podStored(before, p *corev1.Pod) {
	node := p.Spec.NodeName
	if node == "" {
		return
	}
	if w.store.nodes[node] == nil {
		w.collectLater(node)
		return
	}
	if before == nil || before.Spec.NodeName == "" || (before.DeletionTimestamp == nil) != (p.DeletionTimestamp == nil) {
		w.in(w.watchDelay(), func() { w.fleet.sync(node, p.Name) })
	}
	if m := minReady(w.store.ds); m > 0 && isReady(p) {
		w.at(p.Status.Conditions[0].LastTransitionTime.Add(m), func() { w.truth.podChanged(node) })
	}
}

// collectLater is the pod garbage collector: pods bound to a node that stays away are ended by force.
func (w *world) collectLater(node string) {
	w.in(w.between(minCollect, maxCollect), func() {
		if w.store.nodes[node] != nil {
			return
		}
		for _, p := range slices.Clone(w.store.onNode[node]) {
			if p.Spec.NodeName != "" {
				w.say(node, "the garbage collector ends %s", p.Name)
				w.store.removePod(p.Name, p.UID)
			}
		}
	})
}

// between draws a duration.
func (w *world) between(least, most time.Duration) time.Duration {
	return least + time.Duration(w.rng.Int64N(int64(most-least)+1))
}

// about draws a duration around a mean: from a third of it to five thirds.
func (w *world) about(mean time.Duration) time.Duration { return w.between(mean/3, mean/3*5) }

func (w *world) travel() time.Duration { return w.between(time.Millisecond/2, maxTravel) }

// say adds a line to the transcript; node is whom it is about, "" for everyone.
func (w *world) say(node, format string, args ...any) {
	w.transcript.add(w.now, node, fmt.Sprintf(format, args...))
}
