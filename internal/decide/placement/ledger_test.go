package placement

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
)

func container(cpu string, ports ...int32) corev1.Container {
	c := corev1.Container{Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}}}
	for _, p := range ports {
		c.Ports = append(c.Ports, corev1.ContainerPort{ContainerPort: p, HostPort: p})
	}
	return c
}

func boundPod(name string, c corev1.Container) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ops", Name: name},
		Spec:       corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{c}},
	}
}

func TestLedgerSaysWhatIsMissing(t *testing.T) {
	l := NewLedger()
	l.SetNode(NodeOf(node(nil))) // 2 CPUs, 3 pods
	l.SetPod(boundPod("web", container("1500m", 9100)))
	for _, tc := range []struct {
		name string
		spec corev1.PodSpec
		want []string
	}{
		{"fits", corev1.PodSpec{Containers: []corev1.Container{container("500m", 9101)}}, nil},
		{"cpu", corev1.PodSpec{Containers: []corev1.Container{container("650m")}}, []string{"cpu short by 150m: 650m asked, the node has 500m free"}},
		{"port", corev1.PodSpec{Containers: []corev1.Container{container("0", 9100)}}, []string{"host port 9100/TCP is held by pod ops/web"}},
		{"port of the host network", corev1.PodSpec{HostNetwork: true, Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{ContainerPort: 9100, HostIP: "10.0.0.1"}}}}},
			[]string{"host port 10.0.0.1:9100/TCP is held by pod ops/web"}},
		{"another protocol", corev1.PodSpec{Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{HostPort: 9100, Protocol: corev1.ProtocolUDP}}}}}, nil},
		{"extended resource", corev1.PodSpec{Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"example.com/gpu": resource.MustParse("2")}}}}},
			[]string{"example.com/gpu short by 1: 2 asked, the node has 1 free"}},
		{"a resource that it has none of", corev1.PodSpec{Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"example.com/fpga": resource.MustParse("1")}}}}},
			[]string{"example.com/fpga short by 1: 1 asked, the node has 0 free"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := DemandOf(&tc.spec)
			var got []string
			for _, r := range l.Explain("n1", d) {
				got = append(got, r.String())
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if l.Fits("n1", d) != (len(tc.want) == 0) {
				t.Errorf("Fits says %v", l.Fits("n1", d))
			}
		})
	}
	none := DemandOf(&corev1.PodSpec{})
	l.Reserve("ops/a", "n1", none)
	l.Reserve("ops/b", "n1", none)
	if got := l.Explain("n1", none); len(got) != 1 || got[0].String() != "room for one more pod, the node has 3 of 3 pods" {
		t.Errorf("full node: %v", got)
	}
	if l.Fits("n2", none) {
		t.Error("a node that is not there has room")
	}
}

// TestLedgerAddsUp compares the ledger with plain sums over what it was told last, in any order of telling.
func TestLedgerAddsUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := NewLedger()
		type on struct {
			node string
			d    *Demand
		}
		want := map[string]on{}
		for range rapid.IntRange(0, 40).Draw(t, "steps") {
			pod := fmt.Sprintf("p%d", rapid.IntRange(0, 4).Draw(t, "pod"))
			name := fmt.Sprintf("n%d", rapid.IntRange(1, 2).Draw(t, "node"))
			key := PodKey("ops", pod)
			p := boundPod(pod, container(fmt.Sprintf("%dm", rapid.IntRange(0, 900).Draw(t, "cpu")), int32(rapid.IntRange(1, 3).Draw(t, "port"))))
			p.Spec.NodeName = name
			p.Generation = 2 // its requests may change
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0:
				n := node(nil)
				n.Name = name
				l.SetNode(NodeOf(n))
			case 1:
				l.RemoveNode(name)
			case 2:
				l.Remove(key)
				delete(want, key)
			case 3:
				p.Status.Phase = corev1.PodSucceeded
				l.SetPod(p)
				delete(want, key)
			case 4:
				l.Reserve(key, name, DemandOf(&p.Spec))
				want[key] = on{name, DemandOf(&p.Spec)}
			default:
				l.SetPod(p)
				want[key] = on{name, DemandOf(&p.Spec)}
			}
			for _, name := range []string{"n1", "n2"} {
				var cpu, pods int64
				ports := map[Port]int{}
				for _, o := range want {
					if o.node == name {
						cpu += o.d.MilliCPU
						pods++
						for _, p := range o.d.Ports {
							ports[p]++
						}
					}
				}
				a := l.accounts[name]
				if a == nil {
					a = &account{}
				}
				got := map[Port]int{}
				for p, keys := range a.ports {
					got[p] = len(keys)
				}
				if a.used.MilliCPU != cpu || a.pods != pods || !cmp.Equal(ports, got) {
					t.Fatalf("%s: %d mCPU, %d pods, ports %v; want %d, %d, %v", name, a.used.MilliCPU, a.pods, got, cpu, pods, ports)
				}
			}
		}
	})
}

func TestRepels(t *testing.T) {
	daemon := Compile("ops", &corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "agent"}}})
	antiAffinity := func(name string, change func(*corev1.PodAffinityTerm)) *corev1.Pod {
		p := boundPod(name, container("0"))
		term := corev1.PodAffinityTerm{TopologyKey: "zone", LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "agent"}}}
		if change != nil {
			change(&term)
		}
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term}}}
		return p
	}
	for name, tc := range map[string]struct {
		pod  *corev1.Pod
		want bool
	}{
		"its own namespace":  {antiAffinity("a", nil), true},
		"other labels":       {antiAffinity("a", func(t *corev1.PodAffinityTerm) { t.LabelSelector.MatchLabels["app"] = "web" }), false},
		"other namespace":    {antiAffinity("a", func(t *corev1.PodAffinityTerm) { t.Namespaces = []string{"web"} }), false},
		"namespace selector": {antiAffinity("a", func(t *corev1.PodAffinityTerm) { t.NamespaceSelector = &metav1.LabelSelector{} }), true},
		"no anti-affinity":   {boundPod("a", container("0")), false},
	} {
		t.Run(name, func(t *testing.T) {
			l := NewLedger()
			l.SetPod(tc.pod)
			twin := tc.pod.DeepCopy()
			twin.Name = "b"
			l.SetPod(twin)
			if got := l.Repels(daemon); got != tc.want {
				t.Errorf("repels: %v", got)
			}
			l.Remove(PodKey("ops", "a"))
			if got := l.Repels(daemon); got != tc.want {
				t.Errorf("repels with one of two gone: %v", got)
			}
			version := l.RepelVersion()
			l.Remove(PodKey("ops", "b"))
			if l.Repels(daemon) {
				t.Error("repels with none left")
			}
			if tc.want && l.RepelVersion() == version {
				t.Error("the version is the same")
			}
		})
	}
}

// A promise counts until its pod is seen, is then the pod's own entry, and can be taken back only before.
func TestPromises(t *testing.T) {
	const key = "ops/web"
	d := DemandOf(&corev1.PodSpec{Containers: []corev1.Container{container("1500m", 9100)}})
	pod := boundPod("web", container("1500m", 9100))
	unbound := boundPod("web", container("1500m", 9100))
	unbound.Spec.NodeName = ""
	ended := boundPod("web", container("1500m", 9100))
	ended.Status.Phase = corev1.PodFailed
	ignored := func(string) bool { return false }
	for _, tc := range []struct {
		name        string
		then        func(*Ledger)
		outstanding int64
		fits        bool
	}{
		{"nothing more", func(*Ledger) {}, 1, false},
		{"seen, not bound yet", func(l *Ledger) { l.SetPod(unbound) }, 1, false},
		{"seen bound", func(l *Ledger) { l.SetPod(pod) }, 0, false},
		{"seen bound, then taken back", func(l *Ledger) { l.SetPod(pod); l.Release(key) }, 0, false},
		{"taken back", func(l *Ledger) { l.Release(key) }, 0, true},
		{"seen ended", func(l *Ledger) { l.SetPod(ended) }, 0, true},
		{"removed", func(l *Ledger) { l.Remove(key) }, 0, true},
		{"seen bound, then unbound in its place", func(l *Ledger) { l.SetPod(pod); l.SetPod(unbound) }, 0, true},
		{"given anew", func(l *Ledger) { l.Reserve(key, "n1", d) }, 1, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := NewLedger()
			l.SetNode(NodeOf(node(nil))) // 2 CPUs
			l.Reserve(key, "n1", d)
			before := l.Freed()
			tc.then(l)
			got, pods := l.Outstanding("n1", ignored)
			if pods != tc.outstanding || got.MilliCPU != 1500*tc.outstanding || len(got.Ports) != int(tc.outstanding) {
				t.Errorf("outstanding: %d pods, %+v; want %d", pods, got, tc.outstanding)
			}
			if _, pods := l.Outstanding("n1", func(k string) bool { return k == key }); pods != 0 {
				t.Error("a promise to a pod that the asker counts is counted twice")
			}
			if fits := l.Fits("n1", d); fits != tc.fits {
				t.Errorf("fits: %v, want %v", fits, tc.fits)
			}
			if tc.fits && l.Freed() == before {
				t.Error("room was freed and nobody can tell")
			}
		})
	}
	if NewLedger().Knows("n1") {
		t.Error("an empty ledger knows a node")
	}
}

// A pod that was promised its room repels others like any, once it is seen.
func TestPromisedPodsRepel(t *testing.T) {
	l := NewLedger()
	l.SetNode(NodeOf(node(nil)))
	p := boundPod("web", container("100m"))
	p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
		{TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "x"}}}}}}
	l.Reserve("ops/web", "n1", DemandOf(&p.Spec))
	before := l.RepelVersion()
	l.SetPod(p)
	if l.RepelVersion() == before {
		t.Error("the pod's anti-affinity is not known")
	}
}

func TestClashes(t *testing.T) {
	ask := func(ports ...int32) *Demand {
		return DemandOf(&corev1.PodSpec{Containers: []corev1.Container{container("0", ports...)}})
	}
	if p, is := ask(80, 443).Clashes(ask(8443, 443)); !is || p.Number != 443 {
		t.Errorf("443 and 443: %v %v", p, is)
	}
	if p, is := ask(80).Clashes(ask(443)); is {
		t.Errorf("80 and 443 clash on %v", p)
	}
}
