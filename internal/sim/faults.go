package sim

import (
	"slices"
	"time"

	machine "github.com/everynode/everynode/internal/decide/daemonset"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// faults is how much goes wrong now.
func (w *world) faults() Faults {
	if w.quiet {
		return Faults{}
	}
	return w.o.Faults
}

// chance is true in so many of 1000 cases.
func (w *world) chance(of1000 int) bool { return of1000 > 0 && w.rng.IntN(1000) < of1000 }

// mishap counts one.
func (w *world) mishap(name string) { w.result.Mishaps[name]++ }

// watchDelay is how long one change is on its way to one consumer.
func (w *world) watchDelay() time.Duration {
	if w.chance(w.faults().heldUp) {
		w.mishap("watch event late")
		return w.between(0, 10*time.Second)
	}
	return w.between(time.Millisecond, maxWatchDelay)
}

// fate is what becomes of a write.
type fate int

const (
	fateWorks      fate = iota
	fateRefused         // the answer says no, and nothing was stored
	fateLost            // it never arrives
	fateUnanswered      // it is done, but nobody hears of it
	fateLate            // it is done seconds later, and nobody hears of it
)

func (w *world) fate() fate {
	f := w.faults()
	if w.now.Before(w.brownout) && !w.quiet {
		f.refused, f.lost, f.unanswered = 400, 100, 100
	}
	if f.refused+f.lost+f.unanswered+f.late == 0 {
		return fateWorks
	}
	n := w.rng.IntN(1000)
	for _, x := range []struct {
		of1000 int
		fate   fate
		name   string
	}{
		{f.refused, fateRefused, "write refused"}, {f.lost, fateLost, "write lost"},
		{f.unanswered, fateUnanswered, "answer lost"}, {f.late, fateLate, "write late"},
	} {
		if n < x.of1000 {
			w.mishap(x.name)
			return x.fate
		}
		n -= x.of1000
	}
	return fateWorks
}

// planMishaps starts the two streams of them: nodes', and the control plane's.
func (w *world) planMishaps() {
	w.repeat(max(w.o.Faults.every/time.Duration(w.o.Nodes), time.Microsecond), w.befallNode)
	w.repeat(w.o.Faults.cluster, w.befallCluster)
}

// repeat runs f at random times until all is calm.
func (w *world) repeat(mean time.Duration, f func()) {
	w.in(w.between(0, 2*mean), func() {
		if !w.quiet {
			f()
			w.repeat(mean, f)
		}
	})
}

// calm ends all mishaps and repairs what would not heal by itself. What users have made of the nodes, their
// labels and taints, stays.
func (w *world) calm() {
	w.say("", "from now on everything works")
	w.quiet = true
	for _, h := range w.fleet.order {
		w.fleet.revive(h)
		for _, p := range slices.Clone(w.store.onNode[h.name]) {
			if p.Labels[bystanderLabel] != "" {
				w.store.removePod(p.Name, p.UID)
			}
		}
	}
	if w.brokenTemplate() {
		w.update(false)
	}
}

// befallNode picks a node, and what befalls it.
func (w *world) befallNode() {
	h := w.fleet.order[w.rng.IntN(len(w.fleet.order))]
	if !h.here {
		w.mishap("node returned")
		w.say(h.name, "joins again")
		w.fleet.join(h.name)
		return
	}
	w.truth.excuse(h.name)
	p := w.podOf(h)
	switch w.rng.IntN(12) {
	case 0, 1:
		w.killNode(h)
	case 2:
		w.mishap("node left")
		w.say(h.name, "leaves")
		w.fleet.leave(h)
	case 3:
		w.mishap("node joined")
		w.say("", "a node joins")
		w.fleet.join("")
	case 4:
		w.mishap("node relabelled")
		pool := pools[w.rng.IntN(len(pools))]
		w.say(h.name, "is labelled pool=%s", pool)
		w.fleet.label(h, "pool", pool)
	case 5:
		w.taintNode(h)
	case 6:
		w.standBy(h)
	default:
		if p != nil {
			w.befallPod(h, p)
		}
	}
}

func (w *world) killNode(h *host) {
	if !h.up {
		return
	}
	w.mishap("node died")
	w.say(h.name, "dies")
	w.fleet.die(h)
	w.in(w.between(5*time.Second, 3*time.Minute), func() { w.fleet.revive(h) })
}

func (w *world) taintNode(h *host) {
	const key = "maintenance"
	effects := [][]corev1.TaintEffect{{corev1.TaintEffectNoSchedule}, {corev1.TaintEffectNoExecute}, nil, nil}
	e := effects[w.rng.IntN(len(effects))]
	w.mishap("node tainted or untainted")
	w.say(h.name, "is tainted %v", e)
	w.fleet.taint(h, key, e...)
}

// podOf is one of the DaemonSet's pods on a node, if there is any.
func (w *world) podOf(h *host) *corev1.Pod {
	for _, p := range w.store.onNode[h.name] {
		if p.Labels[bystanderLabel] == "" && p.DeletionTimestamp == nil {
			return p
		}
	}
	return nil
}

func (w *world) befallPod(h *host, p *corev1.Pod) {
	switch n := w.rng.IntN(6); {
	case n == 0:
		w.mishap("pod deleted by a user")
		w.say(h.name, "a user deletes %s", p.Name)
		w.store.deletePod(p.Name, p.UID)
	case n == 1:
		w.mishap("pod's owner taken away")
		w.say(h.name, "a user takes the owner from %s", p.Name)
		w.store.changePod(p.Name, p.UID, func(p *corev1.Pod) { p.OwnerReferences = nil })
	case !h.up || ended(p) || p.Spec.NodeName == "":
	case n == 2:
		w.mishap("pod failed")
		w.say(h.name, "%s fails", p.Name)
		w.store.changePod(p.Name, p.UID, failed)
	case p.Status.Phase == corev1.PodRunning:
		w.mishap("pod crashed")
		w.say(h.name, "%s crashes", p.Name)
		w.fleet.crash(h, p)
	}
}

// bystanderLabel is on pods that are nobody's here, and only take room or names.
const bystanderLabel = "everynode.io/bystander"

// standBy puts a pod on a node that leaves next to no room, for a while.
func (w *world) standBy(h *host) {
	p := w.bystander("busy-"+h.name, h.name)
	p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("3950m")}
	if w.store.pods[p.Name] != nil || !w.truth.hasRoom(p) {
		return
	}
	w.mishap("room taken")
	w.say(h.name, "is full")
	p, _ = w.store.createPod(p)
	w.in(w.between(5*time.Second, 2*time.Minute), func() { w.store.removePod(p.Name, p.UID) })
}

func (w *world) bystander(name, node string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.store.ds.Namespace, Name: name, Labels: map[string]string{bystanderLabel: "true"}},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "other"}}},
	}
}

// squats says whether someone takes a pod's name just before it is created.
func (w *world) squats(machine.Create) bool { return w.faults().refused >= 20 && w.chance(3) }

// squat takes the name.
func (w *world) squat(x machine.Create) {
	if w.store.pods[x.Name] != nil {
		return
	}
	w.mishap("name taken")
	w.say(x.Node, "someone takes the name %s", x.Name)
	w.store.createPod(w.bystander(x.Name, x.Node))
}

// befallCluster is for the control plane, and for users of the DaemonSet.
func (w *world) befallCluster() {
	switch w.rng.IntN(9) {
	case 0, 1:
		w.restart()
	case 2:
		w.depose()
	case 3, 4:
		w.mishap("watch hung")
		kind, d := w.rng.IntN(3), w.between(time.Second, 20*time.Second)
		v := w.someView()
		w.say("", "a watch hangs for %v", d)
		v.hang(kind, d)
	case 5, 6:
		w.mishap("watch broke off")
		kind, d := w.rng.IntN(3), w.between(100*time.Millisecond, 10*time.Second)
		v := w.someView()
		w.say("", "a watch breaks off for %v", d)
		v.breakOff(kind, d)
	case 7:
		w.mishap("API overloaded")
		w.brownout = w.now.Add(w.between(time.Second, 5*time.Second))
		w.say("", "the API is overloaded")
	case 8:
		if w.o.Faults.refused >= 20 { // in a milder world users change nothing by surprise
			w.surpriseUpdate()
		}
	}
}

func (w *world) someView() *view {
	if w.rng.IntN(4) == 0 || w.leader.stopped {
		return w.sched.view
	}
	return w.leader.view
}

// surpriseUpdate is a new template; a broken one is replaced after a while.
func (w *world) surpriseUpdate() {
	broken := w.rng.IntN(3) == 0
	w.mishap("template changed")
	w.update(broken)
	if broken {
		w.in(w.between(10*time.Second, 2*time.Minute), func() {
			if w.brokenTemplate() && !w.quiet {
				w.update(false)
			}
		})
	}
}

// restart kills the leader; another begins a while later. Writes that are on their way then are lost.
func (w *world) restart() {
	if w.leader.stopped {
		return
	}
	after := w.between(10*time.Millisecond, 5*time.Second)
	w.mishap("controller restarted")
	w.say("", "controller %s is killed", w.leader)
	w.leader.stop(w.now.Add(after))
	w.in(after, func() { w.leader = newController(w) })
}

// depose takes the lease from the leader without telling it. It acts on, and seldom sees anything, until its term
// is over; what it has sent by then reaches the API for as long as internal/controllers/election leaves before
// another may begin. With overlapping leaders, the other begins at once.
func (w *world) depose() {
	if w.leader.stopped {
		return
	}
	old, notices := w.leader, w.between(10*time.Millisecond, leaseMargin)
	w.mishap("controller deposed")
	w.say("", "controller %s is deposed, and notices after %v", old, notices)
	for kind := range old.view.streams {
		old.view.hang(kind, w.between(0, leaseMargin))
	}
	end := func() {
		if !old.stopped {
			w.say("", "controller %s notices", old)
			old.stop(w.now.Add(leaseMargin))
		}
	}
	if w.o.Faults.overlap {
		w.leader = newController(w)
		w.in(notices, end)
		return
	}
	w.in(notices, func() {
		if !old.stopped {
			end()
			w.in(leaseMargin, func() { w.leader = newController(w) })
		}
	})
}
