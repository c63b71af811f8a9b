package sim

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// rolling is an update strategy.
func rolling(maxUnavailable, maxSurge string) appsv1.DaemonSetUpdateStrategy {
	u, s := intstr.Parse(maxUnavailable), intstr.Parse(maxSurge)
	return appsv1.DaemonSetUpdateStrategy{
		Type:          appsv1.RollingUpdateDaemonSetStrategyType,
		RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxUnavailable: &u, MaxSurge: &s},
	}
}

var strategies = []appsv1.DaemonSetUpdateStrategy{
	rolling("1", "0"), rolling("2", "0"), rolling("40%", "0"), rolling("0", "1"), rolling("0", "30%"),
	{Type: appsv1.OnDeleteDaemonSetStrategyType},
}

func daemonSet(strategy appsv1.DaemonSetUpdateStrategy) *appsv1.DaemonSet {
	ds := DefaultDaemonSet()
	ds.Spec.UpdateStrategy = strategy
	return ds
}

// small is a world that a seed makes: a few nodes, and as much trouble as there is.
func small(seed uint64) Options {
	ds := daemonSet(strategies[seed%uint64(len(strategies))])
	ds.Spec.MinReadySeconds = []int32{0, 0, 3}[seed/6%3]
	if seed/18%2 == 0 {
		ds.Spec.Template.Spec.NodeSelector = map[string]string{"pool": "a"}
	}
	if seed/36%4 == 0 { // its pods go to the scheduler
		ds.Spec.Template.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: corev1.LabelHostname}},
		}}
	}
	return Options{Nodes: 1 + int(seed%11), Seed: seed, Faults: level("many"), Duration: 10 * time.Minute, DaemonSet: ds}
}

func level(name string) Faults {
	f, err := ParseFaults(name)
	if err != nil {
		panic(err)
	}
	return f
}

func run(t testing.TB, o Options) *Result {
	t.Helper()
	r, err := Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func report(t testing.TB, r *Result) {
	t.Helper()
	if v := r.Violation; v != nil {
		t.Errorf("seed %d: %s: %s\n%s", r.Seed, v.Invariant, v.Message, strings.Join(v.Transcript, "\n"))
	}
}

// seeds is how many small worlds there are; make soak asks for many more.
var seeds = flag.Uint64("seeds", 400, "how many small worlds to live through")

// TestSmallWorlds lives through many short histories in which everything that can go wrong does.
func TestSmallWorlds(t *testing.T) {
	mishaps := map[string]int{}
	for seed := range *seeds {
		r := run(t, small(seed))
		report(t, r)
		for m, n := range r.Mishaps {
			mishaps[m] += n
		}
	}
	for _, m := range []string{
		"write refused", "write lost", "answer lost", "write late", "watch event late", "watch event repeated", "watch hung",
		"watch broke off", "API overloaded", "controller restarted", "controller deposed", "name taken", "room taken",
		"node died", "node left", "node returned", "node joined", "node relabelled", "node tainted or untainted",
		"pod failed at its start", "pod failed", "pod crashed", "pod deleted by a user", "pod's owner taken away", "template changed",
	} {
		if mishaps[m] == 0 {
			t.Errorf("in all these worlds there was no mishap %q: %v", m, mishaps)
		}
	}
}

func TestSameSeedSameBytes(t *testing.T) {
	bytes := func(seed uint64) string {
		b, err := json.Marshal(run(t, small(seed)))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for seed := range uint64(20) {
		if a, b := bytes(seed), bytes(seed); a != b {
			t.Fatalf("seed %d: two runs differ:\n%s\n%s", seed, a, b)
		}
	}
	if bytes(1) == strings.Replace(bytes(1+6*3*2*4*11), fmt.Sprint(1+6*3*2*4*11), "1", 1) {
		t.Error("two seeds make the same history")
	}
}

// TestOverlappingLeaders: two leaders that act at the same time may for a moment make two pods for a node. Nothing
// worse comes of it.
func TestOverlappingLeaders(t *testing.T) {
	for seed := range uint64(100) {
		o := small(seed)
		o.Faults.overlap = true
		report(t, run(t, o))
	}
}

// TestPlantedBugsAreCaught: a mistake in what drives the machine does not go unnoticed, and what is printed names
// the promise that was broken and leads there.
func TestPlantedBugsAreCaught(t *testing.T) {
	for _, c := range []struct {
		bug       bug
		strategy  appsv1.DaemonSetUpdateStrategy
		invariant string
		says      string
	}{
		{forgetful, rolling("1", "0"), OnePerNode, "creates agent-"},
		{generous, rolling("1", "0"), BudgetKept, "(Outdated)"},
		{deaf, rolling("0", "1"), Converges, "breaks off"},
	} {
		var caught *Violation
		for seed := uint64(0); caught == nil && seed < 200; seed++ {
			o := small(seed)
			o.bug, o.DaemonSet = c.bug, daemonSet(c.strategy)
			o.Nodes = 8
			caught = run(t, o).Violation
		}
		if caught == nil {
			t.Errorf("bug %d is not caught", c.bug)
			continue
		}
		story := strings.Join(caught.Transcript, "\n")
		if caught.Invariant != c.invariant || !strings.Contains(story, c.says) || len(caught.Transcript) > shownLines {
			t.Errorf("bug %d: want a violation of %q; got %q: %s\n%s", c.bug, c.invariant, caught.Invariant, caught.Message, story)
		}
	}
}

func TestLargeWorld(t *testing.T) {
	o := Options{Nodes: 20_000, Seed: 1, Faults: level("some"), Duration: 20 * time.Minute, DaemonSet: daemonSet(rolling("5%", "0"))}
	r := run(t, o)
	report(t, r)
	if len(r.Steps) < 2 || r.Steps[1].Took == nil || r.Mishaps["node died"] == 0 {
		t.Errorf("it never had an update that was finished, or no mishaps: %+v %v", r.Steps, r.Mishaps)
	}
}

// TestQuietWorld: without mishaps, a rollout takes what the budget and the pods' start make of it.
func TestQuietWorld(t *testing.T) {
	r := run(t, Options{Nodes: 100, Seed: 7, DaemonSet: daemonSet(rolling("10", "0")), PodStart: 3 * time.Second})
	report(t, r)
	if len(r.Steps) != 2 {
		t.Fatalf("%d steps, want the first rollout and an update", len(r.Steps))
	}
	first, update := r.Steps[0], r.Steps[1]
	if first.Took == nil || first.Took.Duration > 6*time.Second || update.Took == nil || update.Took.Duration < 20*time.Second || update.Took.Duration > time.Minute {
		t.Errorf("first rollout took %v, update %v", first.Took, update.Took)
	}
	if update.Waves != 10 || r.WorstUnavailable != 10 || r.MostByUpdate != 10 || r.Budget != 10 {
		t.Errorf("waves %d, worst %d, by the update %d, budget %d: want 10 each", update.Waves, r.WorstUnavailable, r.MostByUpdate, r.Budget)
	}
	if w := r.Writes; w.Creates != 200 || w.Deletes != 100 || w.Claims+w.Checks != 0 {
		t.Errorf("writes: %+v, want 200 creates and 100 deletes", w)
	}
}

func TestNowhereToRun(t *testing.T) {
	ds := daemonSet(rolling("1", "0"))
	ds.Spec.Template.Spec.NodeSelector = map[string]string{"no": "such"}
	r := run(t, Options{Nodes: 3, DaemonSet: ds})
	report(t, r)
	ds = daemonSet(rolling("1", "0"))
	ds.Spec.Template.Spec.Containers[0].Resources.Requests[corev1.ResourceMemory] = resource.MustParse("1Ti")
	r = run(t, Options{Nodes: 3, DaemonSet: ds})
	report(t, r)
	if r.Steps[0].Took != nil {
		t.Error("pods that fit nowhere are said to run")
	}
}

func TestOptionsAreChecked(t *testing.T) {
	good := func() Options { return Options{Nodes: 1, DaemonSet: DefaultDaemonSet()} }
	for want, change := range map[string]func(*Options){
		"nodes is 0, want 1 to 200000":       func(o *Options) { o.Nodes = 0 },
		"duration is -1s, want 0s to 720h":   func(o *Options) { o.Duration = -time.Second },
		"pod start is 2h0m0s":                func(o *Options) { o.PodStart = 2 * time.Hour },
		"parallelism is -1":                  func(o *Options) { o.Parallelism = -1 },
		"a DaemonSet is required":            func(o *Options) { o.DaemonSet = nil },
		"has no metadata.name":               func(o *Options) { o.DaemonSet.Name = "" },
		"spec.selector is empty":             func(o *Options) { o.DaemonSet.Spec.Selector.MatchLabels = nil },
		"does not match spec.template":       func(o *Options) { o.DaemonSet.Spec.Template.Labels = nil },
		"containers is empty":                func(o *Options) { o.DaemonSet.Spec.Template.Spec.Containers = nil },
		"want RollingUpdate or OnDelete":     func(o *Options) { o.DaemonSet.Spec.UpdateStrategy.Type = "Sometimes" },
		"exactly one of":                     func(o *Options) { o.DaemonSet.Spec.UpdateStrategy = rolling("0", "0") },
		"maxUnavailable is 101%":             func(o *Options) { o.DaemonSet.Spec.UpdateStrategy = rolling("101%", "0") },
		"maxSurge is -1":                     func(o *Options) { o.DaemonSet.Spec.UpdateStrategy = rolling("1", "-1") },
		"maxUnavailable: invalid value for ": func(o *Options) { o.DaemonSet.Spec.UpdateStrategy = rolling("few", "0") },
	} {
		o := good()
		change(&o)
		if _, err := Run(context.Background(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if _, err := ParseFaults("most"); err == nil || !strings.Contains(err.Error(), "none, some or many") {
		t.Errorf("an unknown level: %v", err)
	}
}
