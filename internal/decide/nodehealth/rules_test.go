package nodehealth

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func noExecute(keys ...string) []corev1.Taint {
	var taints []corev1.Taint
	for _, k := range keys {
		taints = append(taints, corev1.Taint{Key: k, Effect: corev1.TaintEffectNoExecute})
	}
	return taints
}

func tolerating(seconds map[string]int64) []corev1.Toleration {
	var all []corev1.Toleration
	for _, key := range []string{"a", "b", "c"} {
		s, is := seconds[key]
		if !is {
			continue
		}
		t := corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists}
		if s >= 0 {
			t.TolerationSeconds = ptr.To(s)
		}
		all = append(all, t)
	}
	return all
}

func TestStay(t *testing.T) {
	const always = -1
	for name, c := range map[string]struct {
		tolerations []corev1.Toleration
		taints      []corev1.Taint
		want        time.Duration
	}{
		"no taint":                       {nil, nil, forever},
		"a taint that evicts nobody":     {nil, []corev1.Taint{{Key: "a", Effect: corev1.TaintEffectNoSchedule}}, forever},
		"not tolerated":                  {nil, noExecute("a"), 0},
		"tolerated forever":              {tolerating(map[string]int64{"a": always}), noExecute("a"), forever},
		"tolerated for a while":          {tolerating(map[string]int64{"a": 30}), noExecute("a"), 30 * time.Second},
		"one of two not tolerated":       {tolerating(map[string]int64{"a": always}), noExecute("a", "b"), 0},
		"the shorter of two":             {tolerating(map[string]int64{"a": 30, "b": 20, "c": 10}), noExecute("a", "b"), 20 * time.Second},
		"forever and a while":            {tolerating(map[string]int64{"a": always, "b": 20}), noExecute("a", "b"), 20 * time.Second},
		"zero seconds":                   {tolerating(map[string]int64{"a": 0}), noExecute("a"), 0},
		"bare Exists":                    {[]corev1.Toleration{{Operator: corev1.TolerationOpExists}}, noExecute("a", "b"), forever},
		"negative seconds are none":      {[]corev1.Toleration{{Key: "a", Operator: corev1.TolerationOpExists, TolerationSeconds: ptr.To(int64(-5))}}, noExecute("a"), 0},
		"another value":                  {[]corev1.Toleration{{Key: "a", Value: "x"}}, []corev1.Taint{{Key: "a", Value: "y", Effect: corev1.TaintEffectNoExecute}}, 0},
		"the first that matches answers": {[]corev1.Toleration{{Operator: corev1.TolerationOpExists, TolerationSeconds: ptr.To(int64(7))}, {Key: "a", Operator: corev1.TolerationOpExists}}, noExecute("a"), 7 * time.Second},
	} {
		if got := stay(c.tolerations, c.taints); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestConditionsOfASilentNode(t *testing.T) {
	now, born := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), metav1.NewTime(time.Date(2029, 1, 1, 0, 0, 0, 0, time.UTC))
	beat := metav1.NewTime(now.Add(-time.Minute))
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", CreationTimestamp: born}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
		{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: beat, LastTransitionTime: born, Reason: "KubeletReady"},
		{Type: corev1.NodeDiskPressure, Status: corev1.ConditionUnknown, Reason: "Other"},
		{Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionFalse, Reason: "Routes"},
	}}}
	at := metav1.NewTime(now)
	want := []corev1.NodeCondition{
		{Type: corev1.NodeReady, Status: corev1.ConditionUnknown, LastHeartbeatTime: beat, LastTransitionTime: at, Reason: "NodeStatusUnknown", Message: "Kubelet stopped posting node status."},
		{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionUnknown, LastHeartbeatTime: born, LastTransitionTime: at, Reason: "NodeStatusNeverUpdated", Message: "Kubelet never posted node status."},
		{Type: corev1.NodePIDPressure, Status: corev1.ConditionUnknown, LastHeartbeatTime: born, LastTransitionTime: at, Reason: "NodeStatusNeverUpdated", Message: "Kubelet never posted node status."},
	}
	if d := cmp.Diff(want, unknown(n, now)); d != "" {
		t.Error(d)
	}
}

func TestStateOfTheFleet(t *testing.T) {
	for _, c := range []struct {
		ready, not int
		want       FleetState
		pause      time.Duration // 0: nobody gets a turn
	}{
		{0, 0, FleetNormal, 10 * time.Second},
		{1, 0, FleetNormal, 10 * time.Second},
		{0, 1, FleetFull, 0},
		{1, 2, FleetNormal, 10 * time.Second}, // two are not a crowd
		{1, 3, FleetPartial, 0},
		{9, 10, FleetNormal, 10 * time.Second},
		{9, 11, FleetPartial, 0}, // 55 %
		{23, 28, FleetNormal, 10 * time.Second},
		{22, 28, FleetPartial, 0},
		{22, 29, FleetPartial, 100 * time.Second}, // more than 50 nodes
		{0, 60, FleetFull, 0},
	} {
		s := New(Options{Pods: func(string) []*corev1.Pod { return nil }})
		s.fleet.Ready, s.fleet.NotReady = c.ready, c.not
		s.assess(time.Time{})
		pause, may := s.pause()
		if s.fleet.State != c.want || pause != c.pause || may != (c.pause != 0) {
			t.Errorf("%d ready, %d not: %s, one in %v, want %s, %v", c.ready, c.not, s.fleet.State, pause, c.want, c.pause)
		}
	}
}

func TestExcludedNodesDoNotCount(t *testing.T) {
	w := newWorld(Options{})
	w.becomes("n1", corev1.ConditionTrue)
	w.report("n1", func(n *corev1.Node) { n.Labels = map[string]string{labelExcluded: ""} })
	w.wait(t, 0)
	if f := w.set.fleet; f.Ready+f.NotReady != 0 {
		t.Errorf("%+v", f)
	}
}

func TestNewestFactWins(t *testing.T) {
	w := newWorld(Options{})
	w.changeNode("n1", setCondition(corev1.NodeReady, corev1.ConditionFalse, "", w.now))
	old := w.nodes["n1"]
	newer := w.changeNode("n1", setCondition(corev1.NodeReady, corev1.ConditionTrue, "", w.now))
	w.set.SetNode(newer, w.now)
	w.set.SetNode(old, w.now)
	if w.set.Next(w.now, 0); w.set.nodes["n1"].obj != newer || w.set.fleet.Ready != 1 {
		t.Error("an event that came late undid a newer fact")
	}
	w.set.RemoveNode("n1", "another")
	if w.set.nodes["n1"] == nil {
		t.Error("the removal of an earlier node of that name removed this one")
	}
}

func TestNothingIsKeptOfWhatIsGone(t *testing.T) {
	w := newWorld(Options{})
	w.becomes("n1", corev1.ConditionTrue)
	w.renew("n1")
	p := w.pod("p", "n1", "10")
	w.setPod(p)
	w.userTaint("n1", "maintenance:NoExecute", true)
	if w.set.tasks.len() != 1 {
		t.Fatalf("%d tasks, want the eviction", w.set.tasks.len())
	}
	w.set.RemoveNode("n1", w.nodes["n1"].UID)
	w.set.RemoveLease("n1")
	w.set.RemovePod(p)
	w.set.Next(w.now, 10)
	s := w.set
	if len(s.nodes)+len(s.dirty)+s.deadlines.len()+s.waiting.len()+s.tasks.len()+len(s.tainted) != 0 || s.fleet.Ready+s.fleet.NotReady != 0 {
		t.Errorf("left: %+v", s)
	}
}

func TestRoomIsKept(t *testing.T) {
	w := newWorld(Options{})
	for _, n := range expand([]string{"n1..n9"}) {
		w.becomes(n, corev1.ConditionTrue)
	}
	total := 0
	for range 3 {
		a := w.set.Next(w.now, 4)
		if a.Len() > 4 || a.More != (total+a.Len() < 9) {
			t.Errorf("%d actions after %d, more %v", a.Len(), total, a.More)
		}
		total += a.Len()
	}
	if total != 9 {
		t.Errorf("%d nodes untainted, want 9", total)
	}
}

func TestTrimLease(t *testing.T) {
	renew := metav1.NowMicro()
	full := coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-node-lease", Name: "n1", UID: "u", ResourceVersion: "7", Labels: map[string]string{"a": "b"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "n1", UID: "x"}}},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: ptr.To("n1"), LeaseDurationSeconds: ptr.To(int32(40)), RenewTime: &renew},
	}
	trimmed := full.DeepCopy()
	TrimLease(trimmed)
	want := full.DeepCopy()
	want.Labels, want.Spec.HolderIdentity, want.Spec.LeaseDurationSeconds = nil, nil, nil
	if d := cmp.Diff(want, trimmed); d != "" {
		t.Error(d)
	}
	full.Namespace = "kube-system"
	whole := full.DeepCopy()
	TrimLease(whole)
	if d := cmp.Diff(&full, whole); d != "" {
		t.Errorf("a lease that is no node's was trimmed:\n%s", d)
	}
}

func TestOptions(t *testing.T) {
	pods := func(string) []*corev1.Pod { return nil }
	for want, o := range map[string]Options{
		"Pods":              {},
		"grace":             {Pods: pods, GracePeriod: -1},
		"rates":             {Pods: pods, EvictionRate: -1},
		"LargeFleet":        {Pods: pods, LargeFleet: -1},
		"UnhealthyFraction": {Pods: pods, UnhealthyFraction: 2},
	} {
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
	o := Options{Pods: pods, GracePeriod: 2 * time.Minute}
	if err := o.Validate(); err != nil {
		t.Error(err)
	}
	if o = o.withDefaults(); o.StartupGracePeriod != 2*time.Minute || o.EvictionRate != 0.1 {
		t.Errorf("defaults: %+v", o)
	}
}
