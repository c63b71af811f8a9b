package placement

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"pgregory.net/rapid"
)

func node(change func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"disk": "hdd", "cpus": "8"}},
		Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("4Gi"),
			corev1.ResourcePods: resource.MustParse("3"), "example.com/gpu": resource.MustParse("1"),
		}},
	}
	if change != nil {
		change(n)
	}
	return n
}

func taint(key, value string, effect corev1.TaintEffect) func(*corev1.Node) {
	return func(n *corev1.Node) {
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Value: value, Effect: effect})
	}
}

func affinity(terms ...corev1.NodeSelectorTerm) corev1.PodSpec {
	return corev1.PodSpec{Affinity: &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: terms},
	}}}
}

func label(key string, op corev1.NodeSelectorOperator, values ...string) corev1.NodeSelectorTerm {
	return corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: key, Operator: op, Values: values}}}
}

func field(op corev1.NodeSelectorOperator, values ...string) corev1.NodeSelectorTerm {
	return corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: op, Values: values}}}
}

func tolerating(ts ...corev1.Toleration) corev1.PodSpec { return corev1.PodSpec{Tolerations: ts} }

func TestVerdict(t *testing.T) {
	const (
		in, notIn, exists = corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn, corev1.NodeSelectorOpExists
		noSchedule        = corev1.TaintEffectNoSchedule
		noExecute         = corev1.TaintEffectNoExecute
	)
	seconds := int64(5)
	for _, tc := range []struct {
		name string
		spec corev1.PodSpec
		node func(*corev1.Node)
		want string
	}{
		{"anything goes", corev1.PodSpec{}, nil, "in"},
		{"named node", corev1.PodSpec{NodeName: "n1"}, nil, "in"},
		{"another named node", corev1.PodSpec{NodeName: "n2"}, nil, "out: the template names node n2"},
		{"selector", corev1.PodSpec{NodeSelector: map[string]string{"disk": "hdd"}}, nil, "in"},
		{"selector, other value and no label", corev1.PodSpec{NodeSelector: map[string]string{"disk": "ssd", "zone": "a"}}, nil,
			"out: nodeSelector wants disk=ssd, the node has disk=hdd; nodeSelector wants zone=a, the node has no label zone"},

		{"affinity in", affinity(label("disk", in, "ssd", "hdd")), nil, "in"},
		{"affinity not in, no such label", affinity(label("zone", notIn, "a")), nil, "in"},
		{"affinity gt", affinity(label("cpus", corev1.NodeSelectorOpGt, "4")), nil, "in"},
		{"affinity lt", affinity(label("cpus", corev1.NodeSelectorOpLt, "4")), nil,
			"out: affinity term 1 wants cpus less than (4), the node has cpus=8"},
		{"affinity exists", affinity(label("zone", exists)), nil, "out: affinity term 1 wants zone exists, the node has no label zone"},
		{"affinity does not exist", affinity(label("disk", corev1.NodeSelectorOpDoesNotExist)), nil,
			"out: affinity term 1 wants disk does not exist, the node has disk=hdd"},
		{"affinity terms are alternatives", affinity(label("zone", exists), field(in, "n1")), nil, "in"},
		{"no alternative holds", affinity(label("zone", exists), field(in, "n2")), nil,
			"out: affinity term 1 wants zone exists, the node has no label zone; affinity term 2 wants metadata.name in (n2), the node has name n1"},
		{"field not in", affinity(field(notIn, "n1")), nil, "out: affinity term 1 wants metadata.name not in (n1), the node has name n1"},
		{"empty term", affinity(corev1.NodeSelectorTerm{}), nil, "out: affinity term 1 wants nothing (the term is empty), the node has no way to match"},
		{"no terms", affinity(), nil, "out: affinity term 0 wants nothing (it has no terms), the node has no way to match"},

		{"NoSchedule", corev1.PodSpec{}, taint("gpu", "", noSchedule), "stay: taint gpu:NoSchedule is not tolerated"},
		{"NoExecute", corev1.PodSpec{}, taint("gpu", "a100", noExecute), "out: taint gpu=a100:NoExecute is not tolerated"},
		{"PreferNoSchedule bars nothing", corev1.PodSpec{}, taint("gpu", "", corev1.TaintEffectPreferNoSchedule), "in"},
		{"Equal", tolerating(corev1.Toleration{Key: "gpu", Operator: corev1.TolerationOpEqual, Value: "a100"}), taint("gpu", "a100", noExecute), "in"},
		{"no operator is Equal", tolerating(corev1.Toleration{Key: "gpu", Value: "a100"}), taint("gpu", "a100", noSchedule), "in"},
		{"Equal, other value", tolerating(corev1.Toleration{Key: "gpu", Value: "h100"}), taint("gpu", "a100", noSchedule), "stay: taint gpu=a100:NoSchedule is not tolerated"},
		{"Exists", tolerating(corev1.Toleration{Key: "gpu", Operator: corev1.TolerationOpExists}), taint("gpu", "a100", noSchedule), "in"},
		{"bare Exists tolerates all", tolerating(corev1.Toleration{Operator: corev1.TolerationOpExists}), taint("gpu", "a100", noExecute), "in"},
		{"other effect", tolerating(corev1.Toleration{Key: "gpu", Operator: corev1.TolerationOpExists, Effect: noSchedule}), taint("gpu", "", noExecute), "out: taint gpu:NoExecute is not tolerated"},
		{"seconds do not matter here", tolerating(corev1.Toleration{Key: "gpu", Operator: corev1.TolerationOpExists, Effect: noExecute, TolerationSeconds: &seconds}), taint("gpu", "", noExecute), "in"},

		{"not ready, NoExecute", corev1.PodSpec{}, taint(corev1.TaintNodeNotReady, "", noExecute), "in"},
		{"not ready, NoSchedule", corev1.PodSpec{}, taint(corev1.TaintNodeNotReady, "", noSchedule), "stay: taint node.kubernetes.io/not-ready:NoSchedule is not tolerated"},
		{"cordoned", corev1.PodSpec{}, taint(corev1.TaintNodeUnschedulable, "", noSchedule), "in"},
		{"disk pressure", corev1.PodSpec{}, taint(corev1.TaintNodeDiskPressure, "", noSchedule), "in"},
		{"no network", corev1.PodSpec{}, taint(corev1.TaintNodeNetworkUnavailable, "", noSchedule), "stay: taint node.kubernetes.io/network-unavailable:NoSchedule is not tolerated"},
		{"no network, host network", corev1.PodSpec{HostNetwork: true}, taint(corev1.TaintNodeNetworkUnavailable, "", noSchedule), "in"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := Compile("ops", &corev1.PodTemplateSpec{Spec: tc.spec})
			n := NodeOf(node(tc.node))
			v := c.Explain(n)
			if d := cmp.Diff(tc.want, v.String()); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if got := c.Judge(n); got != v.Outcome {
				t.Errorf("Judge says %v, Explain says %v", got, v.Outcome)
			}
		})
	}
}

// TestAutomaticTolerationsAreUnlimited: a limit in seconds of the template's own is lifted in place.
func TestAutomaticTolerations(t *testing.T) {
	seconds := int64(300)
	limited := corev1.Toleration{Key: corev1.TaintNodeNotReady, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds}
	spec := corev1.PodSpec{Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists, Key: "mine"}, limited}}
	var got []string
	for _, tol := range DaemonTolerations(&spec) {
		if tol.TolerationSeconds != nil {
			t.Errorf("%s is limited to %d s", tol.Key, *tol.TolerationSeconds)
		}
		got = append(got, tol.Key+":"+string(tol.Effect))
	}
	want := []string{
		"mine:", "node.kubernetes.io/not-ready:NoExecute", "node.kubernetes.io/unreachable:NoExecute",
		"node.kubernetes.io/disk-pressure:NoSchedule", "node.kubernetes.io/memory-pressure:NoSchedule",
		"node.kubernetes.io/pid-pressure:NoSchedule", "node.kubernetes.io/unschedulable:NoSchedule",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if spec.Tolerations[1].TolerationSeconds == nil {
		t.Error("the template was changed")
	}
}

// TestAgreesWithLibrary compares the rules with the ones that the scheduler uses, on random templates and nodes.
func TestAgreesWithLibrary(t *testing.T) {
	keys := rapid.SampledFrom([]string{"a", "b", "metadata.name", "bad key!"})
	values := rapid.SampledFrom([]string{"1", "2", "x", "n1", ""})
	operators := rapid.SampledFrom([]corev1.NodeSelectorOperator{
		corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn, corev1.NodeSelectorOpExists,
		corev1.NodeSelectorOpDoesNotExist, corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt, "Bogus",
	})
	requirements := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) corev1.NodeSelectorRequirement {
		return corev1.NodeSelectorRequirement{
			Key: keys.Draw(t, "key"), Operator: operators.Draw(t, "operator"), Values: rapid.SliceOfN(values, 0, 2).Draw(t, "values"),
		}
	}), 0, 2)
	rapid.Check(t, func(t *rapid.T) {
		var spec corev1.PodSpec
		if rapid.Bool().Draw(t, "affinity") {
			spec = affinity(rapid.SliceOfN(rapid.Custom(func(t *rapid.T) corev1.NodeSelectorTerm {
				return corev1.NodeSelectorTerm{MatchExpressions: requirements.Draw(t, "expressions"), MatchFields: requirements.Draw(t, "fields")}
			}), 0, 3).Draw(t, "terms")...)
		}
		if rapid.Bool().Draw(t, "selector") {
			spec.NodeSelector = rapid.MapOfN(keys, values, 0, 2).Draw(t, "nodeSelector")
		}
		n := node(func(n *corev1.Node) { n.Labels = rapid.MapOfN(keys, values, 0, 3).Draw(t, "labels") })
		want, _ := nodeaffinity.GetRequiredNodeAffinity(&corev1.Pod{Spec: spec}).Match(n)
		c := Compile("ops", &corev1.PodTemplateSpec{Spec: spec})
		v := c.Explain(NodeOf(n))
		if got := c.Judge(NodeOf(n)); (got == In) != want || got != v.Outcome {
			t.Fatalf("library says %v, Judge %v, Explain %v", want, got, v)
		}
		if (len(v.Reasons) == 0) != (v.Outcome == In) {
			t.Fatalf("%v with %d reasons", v.Outcome, len(v.Reasons))
		}
	})
}

func TestNeedsScheduler(t *testing.T) {
	for name, tc := range map[string]struct {
		spec corev1.PodSpec
		want []string
	}{
		"nothing": {corev1.PodSpec{SchedulerName: "default-scheduler"}, nil},
		"a preference": {corev1.PodSpec{Affinity: &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
			PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{}}}}}, nil},
		"anti-affinity": {corev1.PodSpec{Affinity: &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{}}}}}, []string{"required pod anti-affinity"}},
		"claim": {corev1.PodSpec{Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{}}}}}, []string{"volume data claims a PersistentVolumeClaim"}},
		"another scheduler": {corev1.PodSpec{SchedulerName: "mine"}, []string{"scheduler mine"}},
		"gate":              {corev1.PodSpec{SchedulingGates: []corev1.PodSchedulingGate{{Name: "g"}}}, []string{"scheduling gate g"}},
	} {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(tc.want, Compile("ops", &corev1.PodTemplateSpec{Spec: tc.spec}).NeedsScheduler()); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func BenchmarkJudge(b *testing.B) {
	spec := affinity(label("disk", corev1.NodeSelectorOpIn, "hdd"))
	c := Compile("ops", &corev1.PodTemplateSpec{Spec: spec})
	n := NodeOf(node(taint(corev1.TaintNodeUnschedulable, "", corev1.TaintEffectNoSchedule)))
	b.ReportAllocs()
	for b.Loop() {
		c.Judge(n)
	}
}
