package explain

import (
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/everynode/everynode/internal/decide/daemonset"
	"github.com/everynode/everynode/internal/decide/placement"
)

// allAtOnce is how many actions the machine may take at once in a rehearsal: all.
const allAtOnce = 1 << 30

// patience bounds how often a rehearsal lets time pass although nothing happens.
const patience = 4

// rehearsal lets the machine work in a cluster in memory in which everything goes well: creates and deletes work
// at once, and every pod that was placed becomes ready, unless its node is not. What the machine would still wait
// for then is what a real rollout would hang on.
//
//	wave:  Next → perform, until nothing is left to do right now
//	       every started pod becomes ready, minReadySeconds pass
//	       the next wave, until there is none
type rehearsal struct {
	*view
	now      time.Time
	starting []string // pods that are placed and not ready, in the order of their creation
	wave     int
	acted    map[string]*act // by node
	uids     int
}

// act is what happened on one node.
type act struct {
	wave    int
	creates []daemonset.Create
	deletes []daemonset.Delete
	// lacks says why a created pod found no place.
	lacks []placement.Reason
}

func rehearse(f *Facts) *rehearsal {
	r := &rehearsal{view: f.view(), now: f.Now, acted: map[string]*act{}}
	for _, name := range slices.Sorted(maps.Keys(r.pods)) {
		if p := r.pods[name]; r.comesUp(p) {
			r.starting = append(r.starting, name)
		}
	}
	for idle := 0; idle < patience; {
		r.wave++
		wakeUp, acted := r.act()
		if !acted {
			r.wave--
		}
		switch {
		case r.finishStarting(), acted:
			idle = 0
		case wakeUp.After(r.now):
			r.now = wakeUp
			idle++
		default:
			return r
		}
	}
	return r
}

// comesUp says whether one of the set's pods that is not ready yet will be, as far as anyone can tell: it is on
// its way, and its node is well.
func (r *rehearsal) comesUp(p *corev1.Pod) bool {
	if !r.isOurs(p) || p.Spec.NodeName == "" || p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodFailed {
		return false
	}
	if slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	}) {
		return false
	}
	fails := slices.ContainsFunc(troublesOf(p), func(t Trouble) bool { return t.Fails })
	return !fails && r.alive(p.Spec.NodeName)
}

func (r *rehearsal) isOurs(p *corev1.Pod) bool {
	o := metav1.GetControllerOfNoCopy(p)
	return o != nil && o.UID == r.facts.DaemonSet.UID
}

func (r *rehearsal) alive(node string) bool {
	return r.nodes[node] != nil && r.trouble(node) == ""
}

// act performs everything that the machine wants right now.
func (r *rehearsal) act() (wakeUp time.Time, acted bool) {
	for {
		a := r.set.Next(r.now, allAtOnce)
		for _, c := range a.Claims {
			r.claim(c)
		}
		for _, d := range a.Deletes {
			r.of(d.Node).deletes = append(r.of(d.Node).deletes, d)
			r.delete(d)
		}
		for _, c := range a.Creates {
			r.of(c.Node).creates = append(r.of(c.Node).creates, c)
			r.create(c)
		}
		for _, c := range a.Checks {
			if p := r.pods[c.Name]; p == nil || (c.UID != "" && p.UID != c.UID) {
				r.set.Gone(c.Name, c.UID)
			} else {
				r.set.Found(c.Name, p.UID, p.DeletionTimestamp != nil)
			}
		}
		if a.Status != nil {
			ds := r.facts.DaemonSet.DeepCopy()
			a.Status.Write(&ds.Status)
			r.set.SetSpec(ds, r.revision)
			r.set.StatusDone(true, r.now)
		}
		if len(a.Creates)+len(a.Deletes)+len(a.Claims) == 0 {
			return a.WakeUp, acted
		}
		acted = true
	}
}

// of finds or begins what happens on a node.
func (r *rehearsal) of(node string) *act {
	x := r.acted[node]
	if x == nil {
		x = &act{wave: r.wave}
		r.acted[node] = x
	}
	return x
}

func (r *rehearsal) create(c daemonset.Create) {
	p := c.Template.Pod(c)
	r.uids++
	p.UID = types.UID(fmt.Sprintf("rehearsed-%d", r.uids))
	p.CreationTimestamp = metav1.NewTime(r.now)
	p.Status.Phase = corev1.PodPending
	r.setPod(p)
	r.set.Created(p.Name, p.UID)
	if c.Bound {
		r.place(p)
		return
	}
	r.schedule(p, c.Node)
}

// schedule is the scheduler, for pods that were created unbound: it binds those that have room, and is taken to
// agree with what only it can judge.
func (r *rehearsal) schedule(p *corev1.Pod, node string) {
	if lacks := r.lacks(node); len(lacks) > 0 {
		r.of(node).lacks = lacks
		return
	}
	r.of(node).lacks = nil
	p = p.DeepCopy()
	p.Spec.NodeName = node
	r.setPod(p)
	r.place(p)
}

func (r *rehearsal) place(p *corev1.Pod) {
	if r.alive(p.Spec.NodeName) {
		r.starting = append(r.starting, p.Name)
	}
}

// delete ends a pod. On a node that is not ready nobody confirms its end.
func (r *rehearsal) delete(d daemonset.Delete) {
	p := r.pods[d.Name]
	if p == nil {
		return
	}
	ended := p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded
	if p.Spec.NodeName != "" && !ended && !r.alive(p.Spec.NodeName) {
		p = p.DeepCopy()
		p.DeletionTimestamp = &metav1.Time{Time: r.now}
		r.setPod(p)
		return
	}
	delete(r.pods, p.Name)
	r.ledger.Remove(placement.PodKey(p.Namespace, p.Name))
	r.set.RemovePod(p.Name, p.UID)
	r.reschedule(d.Node)
}

// reschedule gives the room that became free to a pod that waited for it.
func (r *rehearsal) reschedule(node string) {
	x := r.acted[node]
	if x == nil || len(x.lacks) == 0 || len(x.creates) == 0 {
		return
	}
	if p := r.pods[x.creates[len(x.creates)-1].Name]; p != nil && p.Spec.NodeName == "" {
		r.schedule(p, node)
	}
}

func (r *rehearsal) claim(c daemonset.Claim) {
	p := r.pods[c.Name]
	if p == nil {
		return
	}
	p = p.DeepCopy()
	p.OwnerReferences = nil
	if !c.Release {
		p.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(r.facts.DaemonSet, daemonset.Kind)}
	}
	r.setPod(p)
}

// finishStarting makes every placed pod ready, for long enough to be available.
func (r *rehearsal) finishStarting() bool {
	finished := false
	for _, name := range r.starting {
		p := r.pods[name]
		if p == nil || p.DeletionTimestamp != nil {
			continue
		}
		p = p.DeepCopy()
		p.Status.Phase = corev1.PodRunning
		p.Status.Conditions = []corev1.PodCondition{{
			Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(r.now),
		}}
		r.setPod(p)
		finished = true
	}
	r.starting = nil
	if finished {
		r.now = r.now.Add(time.Duration(r.facts.DaemonSet.Spec.MinReadySeconds)*time.Second + time.Second)
	}
	return finished
}
