package nodehealth

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"
)

// history drives a world at random.
type history struct {
	*world
	t *rapid.T
}

func newHistory(t *rapid.T) *history {
	h := &history{newWorld(Options{}), t}
	for i := range rapid.IntRange(1, 7).Draw(t, "nodes") {
		name := fmt.Sprintf("n%d", i)
		h.becomes(name, corev1.ConditionTrue)
		h.alive[name] = true
		h.renew(name)
	}
	return h
}

func (h *history) step() {
	node := fmt.Sprintf("n%d", rapid.IntRange(0, 6).Draw(h.t, "node"))
	known := h.nodes[node] != nil
	switch step := rapid.IntRange(0, 13).Draw(h.t, "step"); {
	case step == 0 && known:
		h.becomes(node, corev1.ConditionTrue)
	case step == 1 && known:
		h.becomes(node, corev1.ConditionFalse)
	case step == 2 && known:
		delete(h.alive, node)
	case step == 3 && known:
		h.alive[node] = true
		h.renew(node)
	case step == 4 && known:
		kind := rapid.SampledFrom([]corev1.NodeConditionType{corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodeNetworkUnavailable}).Draw(h.t, "kind")
		h.report(node, setCondition(kind, rapid.SampledFrom([]corev1.ConditionStatus{"True", "False"}).Draw(h.t, "status"), "Kubelet", h.now))
	case step == 5 && known:
		h.userTaint(node, rapid.SampledFrom([]string{"maintenance", "x"}).Draw(h.t, "key")+":NoExecute", rapid.Bool().Draw(h.t, "add"))
	case step == 6 && known:
		h.set.SetNode(h.changeNode(node, func(n *corev1.Node) { n.Spec.Unschedulable = !n.Spec.Unschedulable }), h.now)
	case step == 7:
		name := fmt.Sprintf("p%d", rapid.IntRange(0, 9).Draw(h.t, "pod"))
		if p := h.pods[name]; p != nil {
			delete(h.pods, name)
			h.set.RemovePod(p)
		} else {
			h.setPod(h.pod(name, node, rapid.SampledFrom([]string{"-", "5", "60", "forever"}).Draw(h.t, "seconds")))
		}
	case step == 8 && known && rapid.Bool().Draw(h.t, "delete"):
		h.set.RemoveNode(node, h.nodes[node].UID)
		delete(h.nodes, node)
		delete(h.alive, node)
	case step == 9 && !known:
		h.set.SetNode(h.changeNode(node, nil), h.now)
	case step == 10:
		h.refuse = !h.refuse
	case step == 11 && rapid.Bool().Draw(h.t, "restart"):
		h.restart()
	default:
		h.wait(h.t, time.Duration(rapid.IntRange(0, 90).Draw(h.t, "seconds"))*time.Second)
	}
}

func (h *history) play() {
	for range rapid.IntRange(0, 40).Draw(h.t, "steps") {
		h.step()
	}
}

// TestConvergence: left alone, every node ends with exactly the taints that what it says asks for; silent nodes are
// Unknown; whoever must leave has left; and then nothing more is done.
func TestConvergence(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t)
		h.play()
		h.refuse = false
		h.wait(t, 20*time.Minute)
		h.log = nil
		h.wait(t, time.Hour)
		if len(h.log) > 0 {
			t.Fatalf("never at rest: %v", h.log)
		}
		h.checkRest(t)
	})
}

// checkRest says by itself what the world should look like.
func (h *history) checkRest(t *rapid.T) {
	ready, not := 0, 0
	for name, n := range h.nodes {
		is := readiness(n)
		if !h.alive[name] && is != corev1.ConditionUnknown {
			t.Fatalf("%s is silent, and Ready %q", name, is)
		}
		if is == corev1.ConditionTrue {
			ready++
		} else {
			not++
		}
	}
	for name, n := range h.nodes {
		is := readiness(n)
		want := map[string]bool{}
		add := func(when bool, key string, effect corev1.TaintEffect) {
			if when {
				want[key+":"+string(effect)] = true
			}
		}
		has := func(kind corev1.NodeConditionType) bool {
			c := condition(n, kind)
			return c != nil && c.Status == corev1.ConditionTrue
		}
		add(is == corev1.ConditionFalse || is == "", corev1.TaintNodeNotReady, corev1.TaintEffectNoSchedule)
		add(is == corev1.ConditionUnknown, corev1.TaintNodeUnreachable, corev1.TaintEffectNoSchedule)
		add(has(corev1.NodeMemoryPressure), corev1.TaintNodeMemoryPressure, corev1.TaintEffectNoSchedule)
		add(has(corev1.NodeDiskPressure), corev1.TaintNodeDiskPressure, corev1.TaintEffectNoSchedule)
		add(has(corev1.NodePIDPressure), corev1.TaintNodePIDPressure, corev1.TaintEffectNoSchedule)
		add(has(corev1.NodeNetworkUnavailable), corev1.TaintNodeNetworkUnavailable, corev1.TaintEffectNoSchedule)
		add(n.Spec.Unschedulable, corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule)
		got := map[string]bool{}
		evicts := false
		for i := range n.Spec.Taints {
			taint := n.Spec.Taints[i]
			evicts = evicts || taint.Effect == corev1.TaintEffectNoExecute && ours(&taint)
			if ours(&taint) && taint.Effect == corev1.TaintEffectNoSchedule {
				got[taint.ToString()] = true
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("%s, Ready %q:\n%s", name, is, d)
		}
		switch lost := is == corev1.ConditionFalse || is == corev1.ConditionUnknown; {
		case evicts && (!lost || ready == 0):
			t.Fatalf("%s, Ready %q, is emptied while %d are ready", name, is, ready)
		case !evicts && lost && ready > 0 && (not <= 2 || float64(not) < DefaultUnhealthyFraction*float64(ready+not)):
			// It renews but does not say that it is ready: whoever renews is not to be emptied.
			if is == corev1.ConditionFalse || !h.alive[name] {
				t.Fatalf("%s, Ready %q, is not emptied", name, is)
			}
		}
	}
	for _, p := range h.pods {
		n := h.nodes[p.Spec.NodeName]
		if n == nil {
			continue
		}
		if leaves := stay(p.Spec.Tolerations, n.Spec.Taints) != forever; leaves && p.DeletionTimestamp == nil {
			t.Fatalf("pod %s is still on %s with %v", p.Name, n.Name, n.Spec.Taints)
		}
	}
}

// TestOrderDoesNotMatter: the same facts in any order give the same bytes.
func TestOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t)
		h.play()
		room := rapid.SampledFrom([]int{1, 3, 1000}).Draw(t, "room")
		plan := func(seed int64) string {
			s := New(h.options)
			var facts []func()
			for _, name := range slices.Sorted(maps.Keys(h.nodes)) {
				facts = append(facts, func() { s.SetNode(h.nodes[name], h.now) })
			}
			for _, name := range slices.Sorted(maps.Keys(h.renewed)) {
				facts = append(facts, func() { s.Renewed(name, h.renewed[name], h.now) })
			}
			for _, name := range slices.Sorted(maps.Keys(h.pods)) {
				facts = append(facts, func() { s.SetPod(h.pods[name], h.now) })
			}
			rand.New(rand.NewSource(seed)).Shuffle(len(facts), func(i, j int) { facts[i], facts[j] = facts[j], facts[i] })
			for _, f := range facts {
				f()
			}
			var out string
			for _, after := range []time.Duration{0, time.Second, 40 * time.Second, 61 * time.Second, 75 * time.Second} {
				out += dumpJSON(t, s.Next(h.now.Add(after), room))
			}
			return out
		}
		first := plan(1)
		for seed := int64(2); seed < 5; seed++ {
			if d := cmp.Diff(first, plan(seed)); d != "" {
				t.Fatalf("another order, another plan:\n%s", d)
			}
		}
	})
}

// TestNobodyIsEmptiedInHaste: however nodes fall, NoExecute taints of ours are given no faster than the rate, never
// to a node that renews, and never while no node is ready.
func TestNobodyIsEmptiedInHaste(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t)
		h.play()
		h.wait(t, 2*time.Minute)
		if h.hasty != "" {
			t.Fatal(h.hasty)
		}
	})
}

func dumpJSON(t *rapid.T, v any) string {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
