package daemonset

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand"
	"slices"
	"testing"
	"time"

	"github.com/everynode/everynode/internal/decide/placement"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
)

var strategies = []appsv1.DaemonSetUpdateStrategy{
	rolling("1", "0"), rolling("2", "0"), rolling("40%", "0"), rolling("0", "1"), rolling("0", "30%"),
	{Type: appsv1.OnDeleteDaemonSetStrategyType},
}

// history drives a world at random: users, nodes, kubelets, and a machine whose view lags and whose writes fail.
type history struct {
	*world
	t *rapid.T
	// meddled says that a user made pods of ours by hand, so that two on a node are not the machine's doing.
	meddled bool
}

func newHistory(t *rapid.T) *history {
	ds := newDaemonSet(rapid.SampledFrom(strategies).Draw(t, "strategy"))
	ds.Spec.MinReadySeconds = int32(rapid.SampledFrom([]int{0, 0, 3}).Draw(t, "minReadySeconds"))
	if rapid.Bool().Draw(t, "selector") {
		ds.Spec.Template.Spec.NodeSelector = map[string]string{"pool": "a"}
	}
	if rapid.IntRange(0, 4).Draw(t, "antiAffinity") == 0 { // its pods go to the scheduler
		ds.Spec.Template.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: "kubernetes.io/hostname"}},
		}}
	}
	h := &history{world: newWorld(ds), t: t}
	for i := range rapid.IntRange(0, 6).Draw(t, "nodes") {
		h.setNode(testNode(fmt.Sprintf("n%d", i)))
	}
	h.deliverAll()
	return h
}

func (h *history) step() {
	steps := []func(){
		h.someNode, h.someNode, h.somePod, h.somePod, h.somePod, h.see, h.see, h.see, h.act, h.act, h.act, func() { h.kubelet(false) },
		func() { h.now = h.now.Add(time.Duration(rapid.IntRange(1, 3000).Draw(h.t, "ms")) * time.Millisecond) },
		h.rareThing,
	}
	steps[rapid.IntRange(0, len(steps)-1).Draw(h.t, "step")]()
}

func (h *history) rareThing() {
	switch rapid.IntRange(0, 4).Draw(h.t, "rare") {
	case 0:
		h.update(fmt.Sprintf("agent:%d", rapid.IntRange(1, 3).Draw(h.t, "image")))
	case 1:
		h.restart()
	case 2:
		h.orphan()
	case 3:
		h.now = h.now.Add(20 * time.Second) // unseen writes are looked up
	}
}

func (h *history) someNode() {
	name := fmt.Sprintf("n%d", rapid.IntRange(0, 5).Draw(h.t, "node"))
	n := h.nodes[name]
	if n == nil {
		h.setNode(testNode(name))
		return
	}
	n = n.DeepCopy()
	switch rapid.IntRange(0, 5).Draw(h.t, "change") {
	case 0:
		h.removeNode(name)
		return
	case 1:
		n.Labels["pool"] = rapid.SampledFrom([]string{"a", "b"}).Draw(h.t, "pool")
	case 2:
		n.Spec.Taints = []corev1.Taint{{Key: "x", Effect: corev1.TaintEffectNoSchedule}}
	case 3:
		n.Spec.Taints = []corev1.Taint{{Key: "x", Effect: corev1.TaintEffectNoExecute}}
	default:
		n.Spec.Taints, n.Labels["pool"] = nil, "a"
	}
	h.setNode(n)
}

func (h *history) somePod() {
	names := slices.Sorted(maps.Keys(h.pods))
	if len(names) == 0 {
		return
	}
	name := rapid.SampledFrom(names).Draw(h.t, "pod")
	p := h.pods[name]
	fate := rapid.IntRange(0, 7).Draw(h.t, "fate")
	ended := p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded
	switch {
	case fate == 0:
		h.terminate(name)
	case fate == 1:
		h.removePod(p)
	case ended || p.Spec.NodeName == "":
	case fate == 2:
		h.changePod(name, phase(corev1.PodFailed))
	case fate == 3:
		h.changePod(name, phase(corev1.PodSucceeded))
	case fate == 4:
		h.changePod(name, ready(false, h.now))
	default:
		h.changePod(name, ready(true, h.now))
	}
}

// orphan makes a pod by hand that matches and has no owner: it is to be adopted.
func (h *history) orphan() {
	name := fmt.Sprintf("n%d", rapid.IntRange(0, 5).Draw(h.t, "node"))
	h.uids++
	h.meddled = true
	h.setPod(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "ops", Name: fmt.Sprintf("by-hand-%d", h.uids), UID: types.UID(fmt.Sprintf("hand-%d", h.uids)),
			Labels: map[string]string{"app": "agent"}, CreationTimestamp: metav1.NewTime(h.now.Truncate(time.Second)),
		},
		Spec:   corev1.PodSpec{NodeName: name},
		Status: corev1.PodStatus{Phase: corev1.PodPending},
	})
}

func (h *history) see() {
	for range rapid.IntRange(1, 4).Draw(h.t, "events") {
		if len(h.unseen) > 0 {
			h.deliver(rapid.IntRange(0, 100).Draw(h.t, "event"))
		}
	}
}

func (h *history) act() {
	a := h.next(rapid.SampledFrom([]int{1, 2, 100}).Draw(h.t, "room"))
	h.perform(a, func() outcome {
		return rapid.SampledFrom([]outcome{worked, worked, worked, refused, lost}).Draw(h.t, "outcome")
	})
}

// TestNeverTwoOnANode: whatever the machine sees late, loses or forgets, no two pods of it run on one node; two
// revisions may while surging.
func TestNeverTwoOnANode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t)
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			h.step()
			if h.meddled {
				return
			}
			running := map[string]int{}
			for _, p := range h.pods {
				if p.Status.Phase != corev1.PodFailed && p.Status.Phase != corev1.PodSucceeded {
					if h.set.spec.surges() && p.DeletionTimestamp != nil {
						continue
					}
					running[TargetNode(p)]++
				}
			}
			for node, n := range running {
				if n > 2 || (n > 1 && !h.set.spec.surges()) {
					t.Fatalf("%d pods on %s", n, node)
				}
			}
		}
	})
}

// TestConverges: once everything works, the world comes to rest, with one ready pod of the current revision on
// every open node, none elsewhere, a true status, and an empty plan; so it does for a new leader.
func TestConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t)
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			h.step()
		}
		// By hand is still possible, but the user stops now.
		if h.settle() < 0 {
			t.Fatalf("no rest: %s", dumpJSON(h.last))
		}
		h.checkAtRest(t)
		before := h.set.counts
		h.restart()
		if a := h.next(math.MaxInt); a.Len() > 0 {
			t.Fatalf("a new leader finds work: %s\n%s\n%+v", dumpJSON(a), h.dump(), before)
		}
	})
}

func (h *history) checkAtRest(t *rapid.T) {
	if a := h.next(math.MaxInt); a.Len() > 0 || a.Status != nil {
		t.Fatalf("the plan is not empty: %s", dumpJSON(a))
	}
	if d := cmp.Diff(askOracle(h.world).status, statusOf(&h.ds.Status)); d != "" {
		t.Fatalf("stored status (-want +got):\n%s", d)
	}
	on := map[string]int{}
	for _, p := range h.pods {
		on[TargetNode(p)]++
		current := p.Labels[revisionLabel] == h.revision()
		if p.Status.Phase != corev1.PodRunning || (!current && h.set.spec.rolling && h.nodes[TargetNode(p)] != nil &&
			h.set.slots[TargetNode(p)].outcome == placement.In && h.openForUpdate()) {
			t.Fatalf("pod %s on %s: phase %s, current %v", p.Name, TargetNode(p), p.Status.Phase, current)
		}
	}
	for name, n := range h.nodes {
		outcome := h.set.spec.placement.Judge(placement.NodeOf(n))
		if (outcome == placement.In && on[name] != 1) || (outcome == placement.Out && on[name] != 0) || on[name] > 1 {
			t.Fatalf("%d pods on %s, which is %v: %s", on[name], name, outcome, dumpJSON(h.set.Explain(name, h.now)))
		}
	}
}

// openForUpdate says whether an update can finish: a node that keeps an unavailable pod but takes no new one can
// use up the budget for good.
func (h *history) openForUpdate() bool {
	for _, n := range h.nodes {
		if h.set.spec.placement.Judge(placement.NodeOf(n)) == placement.Stay {
			return false
		}
	}
	return true
}

// TestAgreesWithOracle compares the plan of a machine that starts from what is stored, and the counters of the
// one that lived through it all, with those of the plain implementation.
func TestAgreesWithOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t)
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			h.step()
		}
		h.deliverAll()
		h.next(0)
		o := askOracle(h.world)
		if d := cmp.Diff(o.status, h.set.currentStatus()); d != "" {
			t.Fatalf("status (-oracle +machine):\n%s", d)
		}
		for name := range h.pods { // adoption is not the oracle's subject
			if metav1.GetControllerOf(h.pods[name]) == nil {
				delete(h.pods, name)
			}
		}
		h.restart()
		a := h.next(math.MaxInt)
		var creates, deletes []string
		for _, c := range a.Creates {
			creates = append(creates, c.Node)
		}
		for _, d := range a.Deletes {
			deletes = append(deletes, d.Name)
		}
		slices.Sort(creates)
		slices.Sort(deletes)
		o = askOracle(h.world)
		if d := cmp.Diff([][]string{o.creates, o.deletes}, [][]string{creates, deletes}, cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("creates and deletes (-oracle +machine):\n%s\n%s", d, h.dump())
		}
	})
}

// TestOrderOfFactsDoesNotMatter: the same facts in any order give the same bytes.
func TestOrderOfFactsDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t)
		for range rapid.IntRange(0, 40).Draw(t, "steps") {
			h.step()
		}
		room := rapid.SampledFrom([]int{1, 3, 1000}).Draw(t, "room")
		plan := func(seed int64) string {
			var facts []func(*Set, *placement.Ledger)
			for _, name := range slices.Sorted(maps.Keys(h.nodes)) {
				n := placement.NodeOf(h.nodes[name])
				facts = append(facts, func(s *Set, l *placement.Ledger) { l.SetNode(n); s.SetNode(n) })
			}
			for _, name := range slices.Sorted(maps.Keys(h.pods)) {
				p := h.pods[name]
				facts = append(facts, func(s *Set, l *placement.Ledger) { l.SetPod(p); s.SetPod(PodOf(p)) })
			}
			rand.New(rand.NewSource(seed)).Shuffle(len(facts), func(i, j int) { facts[i], facts[j] = facts[j], facts[i] })
			l := placement.NewLedger()
			s := New(h.ds, h.revision(), Options{Ledger: l})
			for _, f := range facts {
				f(s, l)
			}
			return dumpJSON(s.Next(h.now, room)) + dumpJSON(s.Next(h.now.Add(time.Second), room))
		}
		first := plan(1)
		for seed := int64(2); seed < 5; seed++ {
			if d := cmp.Diff(first, plan(seed)); d != "" {
				t.Fatalf("another order, another plan:\n%s", d)
			}
		}
	})
}

// TestBudgetIsKept: what an update deletes of its own accord never makes more nodes unavailable than allowed,
// counted by what is stored.
func TestBudgetIsKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		allowed := rapid.IntRange(1, 3).Draw(t, "maxUnavailable")
		h := &history{world: newWorld(newDaemonSet(rolling(fmt.Sprint(allowed), "0"))), t: t}
		for i := range rapid.IntRange(1, 8).Draw(t, "nodes") {
			h.setNode(testNode(fmt.Sprintf("n%d", i)))
		}
		if h.settle() < 0 {
			t.Fatal("no rest")
		}
		for i := range rapid.IntRange(0, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0, 1:
				h.act()
			case 2, 3:
				h.see()
			case 4:
				h.kubelet(false)
			default:
				h.update(fmt.Sprintf("agent:%d", i))
			}
			up := 0
			for _, p := range h.pods {
				if p.DeletionTimestamp == nil && len(p.Status.Conditions) > 0 && p.Status.Conditions[0].Status == corev1.ConditionTrue {
					up++
				}
			}
			if down := len(h.nodes) - up; down > allowed {
				t.Fatalf("%d of %d nodes are down, %d may be", down, len(h.nodes), allowed)
			}
		}
	})
}

func (h *history) dump() string {
	out := fmt.Sprintf("%+v\n", h.set.counts)
	for _, name := range h.set.Nodes() {
		out += dumpJSON(h.set.Explain(name, h.now)) + "\n"
	}
	return out
}

func dumpJSON(v any) string {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		panic(err)
	}
	return string(b)
}
