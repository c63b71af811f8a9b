package explain

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"
)

// running is a settled DaemonSet on all nodes.
func running(before *appsv1.DaemonSet, nodes []*corev1.Node) *Facts {
	f := &Facts{Now: epoch, Nodes: nodes}
	for _, n := range nodes {
		f.Pods = append(f.Pods, pod(before, n.Name))
	}
	return f
}

func planOf(f *Facts, before, after *appsv1.DaemonSet) *Plan {
	if before != nil {
		after.Generation = before.Generation + 1
	}
	f.DaemonSet = after
	return NewPlan(f, &DryRun{Before: before, After: after})
}

func TestPlans(t *testing.T) {
	onDelete := strategy(appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType})
	for name, c := range map[string]func() *Plan{
		"first": func() *Plan {
			f := &Facts{Now: epoch, Nodes: append(nodes(3), node("gpu", tainted("dedicated", "gpu", corev1.TaintEffectNoSchedule)), node("full"))}
			f.Pods = []*corev1.Pod{other("db", "full", "1650m", 0)}
			return planOf(f, nil, agent(asks("500m", "1Mi")))
		},
		"rolling": func() *Plan {
			before := agent()
			return planOf(running(before, nodes(7)), before, agent(image("agent:2"), strategy(rolling("3", "0"))))
		},
		"surge": func() *Plan {
			before := agent()
			return planOf(running(before, nodes(5)), before, agent(image("agent:2"), strategy(rolling("0", "40%"))))
		},
		"surge-host-ports": func() *Plan {
			before := agent(hostPort(9100), strategy(rolling("0", "1")))
			return planOf(running(before, nodes(3)), before, agent(hostPort(9100), strategy(rolling("0", "1")), image("agent:2")))
		},
		"on-delete": func() *Plan {
			before := agent(onDelete)
			f := running(before, nodes(3))
			f.Pods = f.Pods[1:]
			return planOf(f, before, agent(onDelete, image("agent:2")))
		},
		"node-down": func() *Plan {
			before := agent()
			f := running(before, append(nodes(3), node("a-dead", down)))
			notReadyPod(f.Pods[3])
			return planOf(f, before, agent(image("agent:2")))
		},
		"grown": func() *Plan { // the new pods ask for more than the second node has left
			before := agent(asks("100m", "1Mi"))
			f := running(before, nodes(4))
			f.Pods = append(f.Pods, other("db", "n02", "1500m", 0))
			return planOf(f, before, agent(asks("600m", "1Mi")))
		},
		"narrowed": func() *Plan {
			before := agent()
			f := running(before, nodes(3))
			labelled("disk", "ssd")(f.Nodes[0])
			return planOf(f, before, agent(selects(map[string]string{"disk": "ssd"})))
		},
		"same": func() *Plan {
			before := agent()
			p := planOf(running(before, nodes(2)), before, agent())
			return p
		},
		"never": func() *Plan {
			return planOf(&Facts{Now: epoch, Nodes: nodes(2)}, nil,
				agent(needs(expression("arch", corev1.NodeSelectorOpExists), append(expression("os", corev1.NodeSelectorOpIn, "linux"), expression("os", corev1.NodeSelectorOpDoesNotExist)...))))
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := c()
			golden(t, "plan-"+name+".txt", printed(t, func(b *strings.Builder, f Format) error { return p.Print(b, f) }))
		})
	}
}

func TestPlanJSON(t *testing.T) {
	before := agent()
	var b strings.Builder
	if err := planOf(running(before, nodes(2)), before, agent(image("agent:2"))).Print(&b, JSON); err != nil {
		t.Fatal(err)
	}
	golden(t, "plan.json", b.String())
}

// A plan must not change what it was given: the next one starts from the same facts.
func TestPlanLeavesFactsAlone(t *testing.T) {
	before := agent()
	f := running(before, nodes(4))
	first := planOf(f, before, agent(image("agent:2")))
	if again := planOf(f, before, agent(image("agent:2"))); again.Summary != first.Summary || len(f.Pods) != 4 {
		t.Errorf("first %s\nthen  %s", first.Summary, again.Summary)
	}
}

// Two manifests do not both count on the same room.
func TestCarry(t *testing.T) {
	f := &Facts{Now: epoch, Nodes: nodes(1)}
	first := planOf(f, nil, agent(asks("1500m", "1Mi")))
	second := agent(asks("1500m", "1Mi"), func(ds *appsv1.DaemonSet) { ds.Name = "second" })
	first.Carry(f)
	if p := planOf(f, nil, second); len(p.Nodes[0].Room) == 0 {
		t.Errorf("the second is promised room that the first takes: %s", p.Summary)
	}
}

// Whatever the strategy and the fleet: every open, healthy node is in a wave when the template changes, no wave is
// larger than the budget, and none is empty.
func TestWavesKeepTheBudget(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 30).Draw(t, "nodes")
		budget := rapid.IntRange(1, 10).Draw(t, "budget")
		s := rolling(fmt.Sprint(budget), "0")
		if rapid.Bool().Draw(t, "surge") {
			s = rolling("0", fmt.Sprint(budget))
		}
		before := agent()
		p := planOf(running(before, nodes(n)), before, agent(image("agent:2"), strategy(s), func(ds *appsv1.DaemonSet) {
			ds.Spec.MinReadySeconds = int32(rapid.IntRange(0, 60).Draw(t, "minReady"))
		}))
		seen := 0
		for i, w := range p.Waves {
			if w.Number != i+1 || len(w.Nodes) == 0 || len(w.Nodes) > budget || w.Updates != len(w.Nodes) {
				t.Fatalf("wave %+v with a budget of %d", w, budget)
			}
			seen += len(w.Nodes)
		}
		if want := (n + budget - 1) / budget; seen != n || len(p.Waves) != want {
			t.Fatalf("%d of %d nodes in %d waves, want %d waves", seen, n, len(p.Waves), want)
		}
		if p.Stuck != "" || slices.ContainsFunc(p.Nodes, func(n NodePlan) bool { return n.Action != Update }) {
			t.Fatalf("not all are updated: %s %s", p.Summary, p.Stuck)
		}
	})
}
