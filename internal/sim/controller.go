package sim

import (
	"strconv"
	"time"

	machine "github.com/everynode/everynode/internal/decide/daemonset"
	"github.com/everynode/everynode/internal/decide/placement"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// writeTimeout is how long a controller waits for an answer, as that of internal/controllers/daemonset.
const writeTimeout = 30 * time.Second

// controller plays the shell around the machine: it feeds what its own view shows, performs what comes out
// through an API that may fail it, and reports. It decides nothing.
type controller struct {
	w      *world
	id     int
	view   *view
	ds     *appsv1.DaemonSet
	set    *machine.Set
	ledger *placement.Ledger

	// believed says of each pod that was asked to go whether it was thought available then.
	believed map[types.UID]bool

	inFlight int
	stepping bool
	wakeAt   time.Time
	// stopped: its process has ended; nothing reaches it any more.
	stopped bool
	// cut is when writes of its that are still on their way reach the API no more; zero: they do.
	cut time.Time
}

// newController starts a leader. It begins with a consistent list, as the real one does.
func newController(w *world) *controller {
	w.leaders++
	c := &controller{w: w, id: w.leaders, ledger: placement.NewLedger(), believed: map[types.UID]bool{}}
	c.view = newView(w, c.see)
	w.say("", "controller %s starts", c)
	return c
}

// String is its name in transcripts.
func (c *controller) String() string { return "#" + strconv.Itoa(c.id) }

// stop ends it. Writes on their way reach the API until cut.
func (c *controller) stop(cut time.Time) {
	c.stopped, c.cut = true, cut
	c.view.close()
}

func (c *controller) see(x change) {
	switch {
	case x.ds != nil:
		c.setDaemonSet(x.ds)
	case x.node != nil && x.gone:
		c.ledger.RemoveNode(x.node.Name)
		c.set.RemoveNode(x.node.Name)
	case x.node != nil:
		n := placement.NodeOf(x.node)
		c.ledger.SetNode(n)
		c.set.SetNode(n)
	case x.gone:
		delete(c.believed, x.pod.UID)
		c.ledger.Remove(placement.PodKey(x.pod.Namespace, x.pod.Name))
		c.set.RemovePod(x.pod.Name, x.pod.UID)
	default:
		c.ledger.SetPod(x.pod)
		c.set.SetPod(machine.PodOf(x.pod))
	}
	c.step()
}

// setDaemonSet takes the DaemonSet from the watch or from an answer, unless a newer one is known.
func (c *controller) setDaemonSet(ds *appsv1.DaemonSet) {
	if c.ds != nil && versionOf(ds) <= versionOf(c.ds) {
		return
	}
	c.ds = ds
	if c.w.o.bug == generous {
		ds = withMoreBudget(ds)
	}
	revision := c.w.revisionOf(ds)
	if c.set == nil {
		c.set = machine.New(ds, revision, machine.Options{Ledger: c.ledger})
	} else {
		c.set.SetSpec(ds, revision)
	}
}

// withMoreBudget is what the generous bug makes of a DaemonSet.
func withMoreBudget(ds *appsv1.DaemonSet) *appsv1.DaemonSet {
	ds = ds.DeepCopy()
	unavailable, _ := budget(ds, 100)
	more := intstr.FromInt(unavailable + 2)
	ds.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable = &more
	return ds
}

func versionOf(ds *appsv1.DaemonSet) int64 {
	v, err := strconv.ParseInt(ds.ResourceVersion, 10, 64)
	if err != nil {
		return 0
	}
	return v
}

// step asks for work as soon as everything that arrives now has arrived.
func (c *controller) step() {
	if c.stepping || c.stopped {
		return
	}
	c.stepping = true
	c.w.in(0, func() {
		c.stepping = false
		if !c.stopped {
			c.act()
		}
	})
}

func (c *controller) act() {
	room := c.w.o.Parallelism - c.inFlight
	if room <= 0 {
		return // a report comes back here
	}
	a := c.set.Next(c.w.now, room)
	c.perform(&a)
	if a.More {
		c.step()
	}
	if at := a.WakeUp; !at.IsZero() && (c.wakeAt.IsZero() || at.Before(c.wakeAt) || !c.wakeAt.After(c.w.now)) {
		c.wakeAt = at
		c.w.at(at, c.step)
	}
}

func (c *controller) perform(a *machine.Actions) {
	for _, x := range a.Deletes {
		c.delete(x)
	}
	for _, x := range a.Creates {
		c.create(x)
	}
	for _, x := range a.Checks {
		c.check(x)
	}
	for _, x := range a.Claims {
		c.claim(x)
	}
	if a.Status != nil {
		c.writeStatus(*a.Status)
	}
}

// answer is what a controller learns of a write.
type answer int

const (
	done answer = iota
	refused
	lost
)

// write sends one: do is run when it arrives at the API, if it does; report when the controller learns of it.
// Only pod writes take a place of the parallelism.
func (c *controller) write(pod bool, do func(), report func(answer)) {
	if pod {
		c.inFlight++
	}
	arrive := func() {
		if c.cut.IsZero() || c.w.now.Before(c.cut) {
			do()
		}
	}
	learn := func(a answer) func() {
		return func() {
			if c.stopped {
				return
			}
			if pod {
				c.inFlight--
			}
			report(a)
			c.step()
		}
	}
	there, back := c.w.travel(), c.w.travel()
	giveUp := c.w.between(time.Second, writeTimeout) // the connection breaks, or the time is over
	switch c.w.fate() {
	case fateWorks:
		c.w.in(there, arrive)
		c.w.in(there+back, learn(done))
	case fateRefused:
		c.w.in(there+back, learn(refused))
	case fateLost:
		c.w.in(giveUp, learn(lost))
	case fateUnanswered:
		c.w.in(there, arrive)
		c.w.in(giveUp, learn(lost))
	case fateLate: // it is on its way for as long as its sender waits, and then withdrawn with its connection
		c.w.in(c.w.between(there, giveUp), arrive)
		c.w.in(giveUp, learn(lost))
	}
}

func (c *controller) create(x machine.Create) {
	p := x.Template.Pod(x)
	if c.w.o.bug == forgetful {
		p.Name += "-" + strconv.Itoa(c.w.rng.IntN(1_000_000))
	}
	var holder *corev1.Pod
	var how created
	c.write(true, func() {
		if c.w.squats(x) {
			c.w.squat(x)
		}
		c.w.result.Writes.Creates++
		c.w.say(x.Node, "%s creates %s (%s, bound %v, there already %v)", c, p.Name, x.Reason, x.Bound, c.w.store.pods[p.Name] != nil)
		holder, how = c.w.store.createPod(p)
	}, func(a answer) {
		switch {
		case c.w.o.bug == forgetful, a == refused:
			c.set.CreateFailed(x.Name, machine.Refused, c.w.now)
		case a == lost:
			c.w.say(x.Node, "%s has no answer to the create of %s", c, x.Name)
			c.set.CreateFailed(x.Name, machine.Lost, c.w.now)
		case how == exists && !ownedBySet(holder, x.Node):
			c.w.say(x.Node, "%s finds the name %s taken", c, x.Name)
			c.set.CreateFailed(x.Name, machine.Taken, c.w.now)
		default:
			c.set.Created(x.Name, holder.UID)
		}
	})
}

func ownedBySet(p *corev1.Pod, node string) bool {
	owner := metav1.GetControllerOfNoCopy(p)
	return owner != nil && owner.UID == setUID && machine.TargetNode(p) == node
}

func (c *controller) delete(x machine.Delete) {
	believed, repeated := c.believed[x.UID]
	if !repeated {
		seen := c.view.pods[x.Name]
		believed = seen != nil && seen.UID == x.UID && isAvailable(seen, minReady(c.ds), c.w.now)
		c.believed[x.UID] = believed
	}
	c.write(true, func() {
		c.w.result.Writes.Deletes++
		c.w.say(x.Node, "%s deletes %s (%s)", c, x.Name, x.Reason)
		c.w.truth.deleting(c, x, believed)
		c.w.store.deletePod(x.Name, x.UID)
	}, func(a answer) {
		if a != done {
			c.set.DeleteFailed(x.Name, x.UID, c.w.now)
		}
	})
}

func (c *controller) check(x machine.Check) {
	var found *corev1.Pod
	c.write(true, func() {
		c.w.result.Writes.Checks++
		found = c.w.store.pods[x.Name]
		c.w.say(x.Node, "%s looks for %s, there %v", c, x.Name, found != nil)
	}, func(a answer) {
		switch {
		case a != done:
		case found == nil, x.UID != "" && found.UID != x.UID:
			c.set.Gone(x.Name, x.UID)
		default:
			c.set.Found(x.Name, found.UID, found.DeletionTimestamp != nil)
		}
	})
}

func (c *controller) claim(x machine.Claim) {
	c.write(true, func() {
		c.w.result.Writes.Claims++
		c.w.say("", "%s claims %s (release %v)", c, x.Name, x.Release)
		c.w.store.changePod(x.Name, x.UID, func(p *corev1.Pod) {
			p.OwnerReferences = nil
			if !x.Release {
				p.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(c.ds, machine.Kind)}
			}
		})
	}, func(a answer) {
		if a != done {
			c.set.ClaimFailed(x.Name, x.UID, c.w.now)
		}
	})
}

// writeStatus is conditional on the version that it is based on.
func (c *controller) writeStatus(status machine.Status) {
	base := c.ds
	var live *appsv1.DaemonSet
	worked := false
	c.write(false, func() {
		if live = c.w.store.ds; live.ResourceVersion != base.ResourceVersion {
			return
		}
		c.w.result.Writes.Statuses++
		worked = true
		next := *live
		status.Write(&next.Status)
		c.w.store.setDaemonSet(&next)
		live = c.w.store.ds
	}, func(a answer) {
		if a == done {
			c.setDaemonSet(live)
		}
		c.set.StatusDone(a == done && worked, c.w.now)
	})
}

func minReady(ds *appsv1.DaemonSet) time.Duration {
	return time.Duration(ds.Spec.MinReadySeconds) * time.Second
}
