package eviction

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"github.com/everynode/everynode/internal/decide/podlife"
)

const mib = 1 << 20

var epoch = time.Date(2026, 11, 21, 18, 0, 0, 0, time.UTC)

func thresholds(t testing.TB, s Settings) []Threshold {
	t.Helper()
	list, errs := s.Thresholds()
	if len(errs) > 0 {
		t.Fatal(errs.ToAggregate())
	}
	return list
}

func TestThresholds(t *testing.T) {
	for _, c := range []struct {
		name string
		s    Settings
		want string
	}{
		{"default", Settings{}, ""},
		{"all", Settings{Hard: map[string]string{"memory.available": "5%", "pid.available": "0%"}, Soft: map[string]string{"nodefs.available": "1Gi"},
			SoftGrace: map[string]string{"nodefs.available": "1m"}, MinimumReclaim: map[string]string{"nodefs.available": "500Mi"}}, ""},
		{"unknown signal", Settings{Hard: map[string]string{"disk.available": "10%"}}, `evictionHard: Unsupported value: "disk.available": supported values: "memory.available"`},
		{"no amount", Settings{Hard: map[string]string{"memory.available": "much"}}, `evictionHard[memory.available]: Invalid value: "much": must be a positive quantity like 100Mi`},
		{"negative", Settings{Hard: map[string]string{"memory.available": "-1"}}, "must be a positive quantity"},
		{"more than all", Settings{Hard: map[string]string{"nodefs.available": "110%"}}, "must be a percentage between 0% and 100%"},
		{"soft without grace", Settings{Soft: map[string]string{"memory.available": "1Gi"}}, "evictionSoftGracePeriod[memory.available]: Required value"},
		{"grace that is none", Settings{Soft: map[string]string{"memory.available": "1Gi"}, SoftGrace: map[string]string{"memory.available": "soon"}}, `evictionSoftGracePeriod[memory.available]: Invalid value: "soon": must be a positive duration`},
		{"unknown signal with a reclaim", Settings{MinimumReclaim: map[string]string{"x": "1"}}, "evictionMinimumReclaim: Unsupported value"},
	} {
		_, errs := c.s.Thresholds()
		text := fmt.Sprint(errs.ToAggregate())
		if c.want == "" && len(errs) > 0 || !strings.Contains(text, c.want) {
			t.Errorf("%s: %s, want %q", c.name, text, c.want)
		}
	}
	var names []string
	for _, x := range thresholds(t, Settings{}) {
		names = append(names, fmt.Sprint(x.Signal, x.Below))
	}
	want := []string{
		"memory.available{104857600 0}", "allocatableMemory.available{104857600 0}", "pid.available{0 0.05}", "nodefs.available{0 0.1}",
		"imagefs.available{0 0.15}", "nodefs.inodesFree{0 0.05}", "imagefs.inodesFree{0 0.05}",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("default thresholds (-want +got):\n%s", diff)
	}
}

func memory(available int64) Observations {
	return Observations{MemoryAvailable: {Available: available * mib, Capacity: 1000 * mib}}
}

// TestMonitor follows one node: what is reported when, and when pods have to go.
func TestMonitor(t *testing.T) {
	m := NewMonitor(thresholds(t, Settings{
		Hard: map[string]string{"memory.available": "100Mi"},
		Soft: map[string]string{"memory.available": "200Mi"}, SoftGrace: map[string]string{"memory.available": "30s"},
		MinimumReclaim: map[string]string{"memory.available": "50Mi"},
	}), 5*time.Minute)
	for _, c := range []struct {
		at        time.Duration
		available int64
		pressure  bool
		starved   string
	}{
		{0, 500, false, ""},
		{10 * time.Second, 150, true, ""},     // softly short, but not for long enough
		{40 * time.Second, 150, true, "soft"}, //
		{50 * time.Second, 220, true, "soft"}, // above, but not by the minimum
		{60 * time.Second, 250, true, ""},     //
		{70 * time.Second, 220, true, ""},     // not short again
		{80 * time.Second, 90, true, "hard"},  // at once
		{90 * time.Second, 120, true, "hard"}, // not enough yet; the soft one is new
		{100 * time.Second, 300, true, ""},    //
		{390*time.Second - 1, 300, true, ""},  // still within the transition
		{390 * time.Second, 300, false, ""},   //
	} {
		s := m.Observe(memory(c.available), epoch.Add(c.at))
		var starved []string
		for _, x := range s.Starved {
			if x.Hard() {
				starved = append(starved, "hard")
			} else {
				starved = append(starved, "soft")
			}
		}
		if got := strings.Join(starved, " "); got != c.starved || (len(s.Conditions) > 0) != c.pressure {
			t.Errorf("%v, %d MiB: conditions %v, starved %q; want %v, %q", c.at, c.available, s.Conditions, got, c.pressure, c.starved)
		}
	}
}

// TestUrgency: memory comes first, and what was not measured is not short.
func TestUrgency(t *testing.T) {
	m := NewMonitor(thresholds(t, Settings{}), 0)
	s := m.Observe(Observations{
		NodeFsInodesFree: {1, 100}, ImageFsAvailable: {1, 100}, NodeFsAvailable: {50, 100}, PIDAvailable: {1, 100}, MemoryAvailable: {mib, 1000 * mib},
	}, epoch)
	var got []Signal
	for _, x := range s.Starved {
		got = append(got, x.Signal)
	}
	if diff := cmp.Diff([]Signal{MemoryAvailable, PIDAvailable, ImageFsAvailable, NodeFsInodesFree}, got); diff != "" {
		t.Errorf("starved (-want +got):\n%s", diff)
	}
	want := []corev1.NodeConditionType{corev1.NodeDiskPressure, corev1.NodeMemoryPressure, corev1.NodePIDPressure}
	if diff := cmp.Diff(want, s.Conditions); diff != "" {
		t.Errorf("conditions (-want +got):\n%s", diff)
	}
	if s := m.Observe(nil, epoch.Add(time.Second)); len(s.Starved)+len(s.Conditions) > 0 {
		t.Errorf("nothing was measured, and %+v", s)
	}
}

func pod(name string, priority int32, request string, u *Usage) Pod {
	p := &corev1.Pod{}
	p.Name, p.Spec.Priority = name, &priority
	p.Spec.Containers = []corev1.Container{{Name: "c"}}
	if request != "" {
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{
			corev1.ResourceMemory: resource.MustParse(request), corev1.ResourceEphemeralStorage: resource.MustParse(request),
		}
	}
	return Pod{Pod: p, Usage: u}
}

func uses(memory int64) *Usage {
	return &Usage{Memory: memory * mib, Processes: memory, Containers: map[string]ContainerUsage{
		"c": {Memory: memory * mib, Root: Files{memory * mib, memory}},
	}}
}

func inOrder(pods []Pod) string {
	var list []string
	for _, p := range pods {
		list = append(list, p.Name)
	}
	return strings.Join(list, " ")
}

func TestRank(t *testing.T) {
	onNode, onImages := uses(0), uses(0)
	onNode.Volumes = map[string]Files{"v": {50 * mib, 5}}
	onImages.Containers["c"] = ContainerUsage{Root: Files{70 * mib, 70}, Logs: Files{1 * mib, 1}}
	for _, c := range []struct {
		name   string
		signal Signal
		layout Layout
		pods   []Pod
		want   string
	}{
		{"most beyond its request", MemoryAvailable, Layout{}, []Pod{pod("a", 0, "100Mi", uses(150)), pod("b", 0, "", uses(80)), pod("c", 0, "", uses(20))}, "b a c"},
		{"who keeps within its request goes last", MemoryAvailable, Layout{}, []Pod{pod("a", 0, "1Gi", uses(900)), pod("b", 9, "", uses(1))}, "b a"},
		{"less important first", MemoryAvailable, Layout{}, []Pod{pod("a", 5, "", uses(500)), pod("b", 1, "", uses(1))}, "b a"},
		{"unmeasured first", MemoryAvailable, Layout{}, []Pod{pod("a", 0, "", uses(500)), pod("b", 0, "", nil)}, "b a"},
		{"processes by priority only", PIDAvailable, Layout{}, []Pod{pod("a", 1, "", uses(500)), pod("b", 0, "", uses(1)), pod("c", 0, "", uses(2))}, "c b a"},
		{"one disk: all files count", NodeFsAvailable, Layout{}, []Pod{pod("n", 0, "", onNode), pod("i", 0, "", onImages)}, "i n"},
		{"disks apart: volumes and logs", NodeFsAvailable, Layout{ImagesApart: true}, []Pod{pod("i", 0, "", onImages), pod("n", 0, "", onNode)}, "n i"},
		{"disks apart: layers", ImageFsAvailable, Layout{ImagesApart: true}, []Pod{pod("n", 0, "", onNode), pod("i", 0, "", onImages)}, "i n"},
		{"inodes", NodeFsInodesFree, Layout{}, []Pod{pod("n", 0, "", onNode), pod("i", 0, "", onImages)}, "i n"},
		{"nobody differs: by name", MemoryAvailable, Layout{}, []Pod{pod("b", 0, "", uses(1)), pod("a", 0, "", uses(1))}, "a b"},
	} {
		c.layout.Rank(c.signal, c.pods)
		if got := inOrder(c.pods); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestNext(t *testing.T) {
	critical := pod("critical", podlife.CriticalPriority, "", uses(900))
	static := pod("static", 0, "", uses(900))
	static.Annotations = map[string]string{"kubernetes.io/config.source": "file"}
	pods := []Pod{critical, static, pod("victim", 0, "10Mi", uses(60)), pod("small", 0, "", uses(1))}
	hard := Threshold{Signal: MemoryAvailable, Below: Amount{Number: 100 * mib}}
	e := Layout{}.Next([]Threshold{hard}, pods, memory(50), 0)
	const message = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. " +
		"Container c was using 60Mi, request is 10Mi, has larger consumption of memory. "
	if e == nil || e.Pod.Name != "victim" || e.Grace != 1 || e.Message != message || !e.Disruption {
		t.Fatalf("evicts %+v", e)
	}
	annotations := map[string]string{"offending_containers": "c", "offending_containers_usage": "60Mi", "starved_resource": "memory"}
	if diff := cmp.Diff(annotations, e.Annotations); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
	soft := hard
	soft.Grace = time.Minute
	pods[2].Spec.TerminationGracePeriodSeconds = ptr.To[int64](30) // sorted: any will do
	for _, p := range pods {
		p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](30)
	}
	for limit, want := range map[int64]int64{10: 10, 60: 30} {
		if e := (Layout{}).Next([]Threshold{soft}, pods, memory(50), limit); e.Grace != want {
			t.Errorf("soft eviction with at most %d s: grace %d, want %d", limit, e.Grace, want)
		}
	}
	if e := (Layout{}).Next([]Threshold{hard}, []Pod{critical, static}, memory(50), 0); e != nil {
		t.Errorf("evicts %s", e.Pod.Name)
	}
	full := Threshold{Signal: NodeFsInodesFree, Below: Amount{Share: 0.05}}
	e = Layout{}.Next([]Threshold{full}, []Pod{pod("a", 0, "", nil)}, Observations{NodeFsInodesFree: {10, 1000}}, 0)
	if want := "The node was low on resource: inodes. Threshold quantity: 50, available: 10. "; e.Message != want {
		t.Errorf("message %q, want %q", e.Message, want)
	}
}

func TestOverLimit(t *testing.T) {
	with := func(edit func(*corev1.Pod), u Usage) Pod {
		p := pod("p", 0, "", &u)
		edit(p.Pod)
		return p
	}
	volume := func(limit string, medium corev1.StorageMedium) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			q := resource.MustParse(limit)
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &q, Medium: medium}}}}
		}
	}
	limit := func(amount string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceEphemeralStorage: resource.MustParse(amount)}
		}
	}
	both := func(p *corev1.Pod) {
		limit("10Mi")(p)
		p.Spec.Containers = append(p.Spec.Containers, *p.Spec.Containers[0].DeepCopy())
		p.Spec.Containers[1].Name = "d"
	}
	twenty := map[string]Files{"v": {20 * mib, 1}}
	for _, c := range []struct {
		name   string
		layout Layout
		pod    Pod
		want   string
	}{
		{"within", Layout{}, with(volume("20Mi", ""), Usage{Volumes: twenty}), ""},
		{"volume", Layout{}, with(volume("10Mi", ""), Usage{Volumes: twenty}), `Usage of EmptyDir volume "v" exceeds the limit "10Mi". `},
		{"volume in memory", Layout{}, with(volume("10Mi", "Memory"), Usage{Volumes: twenty}), ""},
		{"no limit", Layout{}, with(volume("0", ""), Usage{Volumes: twenty}), ""},
		{"pod", Layout{}, with(limit("10Mi"), Usage{Ephemeral: 11 * mib}), "Pod ephemeral local storage usage exceeds the total limit of containers 10Mi. "},
		{"container", Layout{}, with(both, Usage{Ephemeral: 12 * mib, Containers: map[string]ContainerUsage{"d": {Root: Files{11 * mib, 1}, Logs: Files{1 * mib, 1}}}}),
			`Container d exceeded its local ephemeral storage limit "10Mi". `},
		{"container, its layer on the images' disk", Layout{ImagesApart: true}, with(both, Usage{Containers: map[string]ContainerUsage{"d": {Root: Files{11 * mib, 1}}}}), ""},
		{"critical", Layout{}, with(func(p *corev1.Pod) { limit("10Mi")(p); p.Spec.Priority = ptr.To[int32](podlife.CriticalPriority) }, Usage{Ephemeral: 11 * mib}), ""},
	} {
		got := ""
		for _, e := range c.layout.OverLimit([]Pod{c.pod, {Pod: c.pod.Pod}}) {
			got += e.Message
			if e.Grace != 1 || e.Disruption {
				t.Errorf("%s: %+v", c.name, e)
			}
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if want := c.name != "no limit" && c.name != "volume in memory"; Limited(c.pod.Pod) != want {
			t.Errorf("%s: limited %v", c.name, !want)
		}
	}
}

func TestRefuse(t *testing.T) {
	bestEffort := pod("b", 0, "", nil).Pod
	tolerant := bestEffort.DeepCopy()
	tolerant.Spec.Tolerations = []corev1.Toleration{{Key: corev1.TaintNodeMemoryPressure, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}}
	burstable, critical := pod("u", 0, "1Mi", nil).Pod, pod("c", podlife.CriticalPriority, "", nil).Pod
	memory, disk, pid := corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure
	for _, c := range []struct {
		pod        *corev1.Pod
		conditions []corev1.NodeConditionType
		want       string
	}{
		{bestEffort, nil, ""},
		{bestEffort, []corev1.NodeConditionType{memory}, "The node had condition: [MemoryPressure]. "},
		{tolerant, []corev1.NodeConditionType{memory}, ""},
		{burstable, []corev1.NodeConditionType{memory}, ""},
		{burstable, []corev1.NodeConditionType{disk}, "The node had condition: [DiskPressure]. "},
		{tolerant, []corev1.NodeConditionType{disk, memory}, "The node had condition: [DiskPressure MemoryPressure]. "},
		{burstable, []corev1.NodeConditionType{pid}, "The node had condition: [PIDPressure]. "},
		{critical, []corev1.NodeConditionType{disk, memory, pid}, ""},
	} {
		got := ""
		if v := Refuse(c.pod, c.conditions); v != nil {
			if got = v.Message; v.Reason != "Evicted" {
				t.Errorf("reason %s", v.Reason)
			}
		}
		if got != c.want {
			t.Errorf("%s with %v: %q, want %q", c.pod.Name, c.conditions, got, c.want)
		}
	}
}

// TestMonitorProperties: whoever acts also reports, hard thresholds act at once, and nothing acts on
// what is not short by what it asks for and its reclaim.
func TestMonitorProperties(t *testing.T) {
	list := thresholds(t, Settings{
		Soft: map[string]string{"memory.available": "30%"}, SoftGrace: map[string]string{"memory.available": "1m"},
		MinimumReclaim: map[string]string{"memory.available": "10%", "nodefs.available": "5%"},
	})
	rapid.Check(t, func(t *rapid.T) {
		m, now := NewMonitor(list, 2*time.Minute), epoch
		for range rapid.IntRange(1, 20).Draw(t, "looks") {
			o := Observations{}
			for _, s := range []Signal{MemoryAvailable, NodeFsAvailable, PIDAvailable} {
				if rapid.IntRange(0, 9).Draw(t, "measured") > 0 {
					o[s] = Observation{Available: rapid.Int64Range(0, 1000).Draw(t, string(s)) * mib, Capacity: 1000 * mib}
				}
			}
			now = now.Add(time.Duration(rapid.IntRange(1, 90).Draw(t, "seconds")) * time.Second)
			s := m.Observe(o, now)
			for _, x := range s.Starved {
				if !x.met(o, true) || !slices.Contains(s.Conditions, x.Signal.Condition()) {
					t.Fatalf("acts on %+v with %v, conditions %v", x, o, s.Conditions)
				}
			}
			for _, x := range list {
				if x.Hard() && x.met(o, false) && !slices.Contains(s.Starved, x) {
					t.Fatalf("does not act on %+v with %v", x, o)
				}
			}
			if m.Resolved(o) && len(s.Starved) > 0 {
				t.Fatalf("resolved with %v, and acts on %v", o, s.Starved)
			}
		}
	})
}
