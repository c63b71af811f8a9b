package explain

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/everynode/everynode/internal/decide/daemonset"
)

// fleet has a node for every kind of answer.
func fleet() *Facts {
	ds := agent(asks("500m", "64Mi"), hostPort(9100), image("agent:2"))
	old := agent(asks("500m", "64Mi"), hostPort(9100))
	going := metav1.NewTime(epoch.Add(-time.Minute))
	return &Facts{
		Now: epoch, DaemonSet: ds,
		Nodes: []*corev1.Node{
			node("in-1"), node("in-2"),
			node("gpu-1", tainted("dedicated", "gpu", corev1.TaintEffectNoSchedule)),
			node("gpu-2", tainted("dedicated", "gpu", corev1.TaintEffectNoSchedule)),
			node("full"), node("port-taken"), node("crashing"), node("no-image"), node("old"), node("leaving"),
			node("starting"), node("silent", down), node("stays", tainted("late", "", corev1.TaintEffectNoSchedule)),
			node("unbound"), node("missing"),
		},
		Pods: []*corev1.Pod{
			pod(ds, "in-1"), pod(ds, "in-2"), pod(ds, "stays"),
			other("db", "full", "1650m", 0), other("exporter", "port-taken", "", 9100), other("cache", "unbound", "1900m", 0),
			pod(ds, "crashing", crashing),
			pod(ds, "no-image", waitingFor("ImagePullBackOff", `Back-off pulling image "agent:2": not found`)),
			pod(old, "old"),
			pod(old, "leaving", func(p *corev1.Pod) { p.DeletionTimestamp, p.Finalizers = &going, []string{"example.com/drain"} }),
			pod(ds, "starting", waitingFor("ContainerCreating", "")),
			pod(ds, "silent", notReadyPod),
			pod(ds, "unbound", unboundPod("0/15 nodes are available: 1 Insufficient cpu.")),
		},
	}
}

func TestWhyFleet(t *testing.T) {
	r := Why(fleet())
	golden(t, "why-fleet.txt", printed(t, func(b *strings.Builder, f Format) error { return r.Print(b, f) }))
	var b strings.Builder
	if err := r.Print(&b, JSON); err != nil {
		t.Fatal(err)
	}
	golden(t, "why-fleet.json", b.String())
	var back struct{ Counts Counts }
	if err := json.Unmarshal([]byte(b.String()), &back); err != nil || back.Counts.Nodes != 15 {
		t.Errorf("read back %+v, %v", back, err)
	}
	if r.Settled() {
		t.Error("a fleet in trouble counts as settled")
	}
}

// A silent node is not one that the DaemonSet was not made for, and its lease says since when it is silent.
func TestWhySilent(t *testing.T) {
	ds := agent()
	f := &Facts{Now: epoch, DaemonSet: ds, Nodes: append(nodes(2), node("silent", unreachable), node("gpu", tainted("gpu", "", corev1.TaintEffectNoSchedule)))}
	f.Pods = []*corev1.Pod{pod(ds, "n01"), pod(ds, "n02"), pod(ds, "silent", notReadyPod)}
	for renewed, want := range map[time.Duration]string{
		2 * time.Minute: "the node is silent: the last sign of life of its agent is 2m old",
		2 * time.Second: "the node was silent: its agent gave a sign of life 2s ago, but has not said yet that it is ready",
	} {
		f.Renewed = map[string]time.Time{"silent": epoch.Add(-renewed)}
		r := Why(f)
		if want := "2 of 4 nodes; 1 excluded by taint gpu:NoSchedule, 1 excluded while the node is silent"; r.Summary != want {
			t.Errorf("got  %s\nwant %s", r.Summary, want)
		}
		if got := strings.Join(r.Nodes[1].Why, "; "); !strings.Contains(got, want) {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// The example of the documentation, word for word.
func TestWhySummary(t *testing.T) {
	ds := agent(asks("500m", "1Mi"))
	f := &Facts{Now: epoch, DaemonSet: ds}
	for i, n := range nodes(45) {
		switch {
		case i < 2:
			tainted("dedicated", "gpu", corev1.TaintEffectNoSchedule)(n)
		case i == 2:
			f.Pods = append(f.Pods, other("db", n.Name, "1650m", 0))
		default:
			f.Pods = append(f.Pods, pod(ds, n.Name))
		}
		f.Nodes = append(f.Nodes, n)
	}
	const want = "42 of 45 nodes; 2 excluded by taint dedicated=gpu:NoSchedule, 1 pending: cpu short by 150m"
	if got := Why(f).Summary; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// One rule a case: the state, and the sentence that a person reads.
func TestWhyRules(t *testing.T) {
	onDelete := strategy(appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType})
	minReady := func(ds *appsv1.DaemonSet) { ds.Spec.MinReadySeconds = 3600 }
	antiAffinity := func(ds *appsv1.DaemonSet) {
		ds.Spec.Template.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: "kubernetes.io/hostname"}},
		}}
	}
	for name, c := range map[string]struct {
		ds    *appsv1.DaemonSet
		node  func(*corev1.Node)
		pods  func(*appsv1.DaemonSet) []*corev1.Pod
		state daemonset.State
		why   string
	}{
		"node name": {ds: agent(func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.NodeName = "elsewhere" }), state: daemonset.Out,
			why: "the template names node elsewhere"},
		"selector, no label": {ds: agent(selects(map[string]string{"disk": "ssd"})), state: daemonset.Out,
			why: "nodeSelector wants disk=ssd, the node has no label disk"},
		"selector, another value": {ds: agent(selects(map[string]string{"disk": "ssd"})), node: labelled("disk", "hdd"), state: daemonset.Out,
			why: "nodeSelector wants disk=ssd, the node has disk=hdd"},
		"affinity, each term": {ds: agent(needs(expression("zone", corev1.NodeSelectorOpIn, "a", "b"), expression("gpu", corev1.NodeSelectorOpExists))),
			node: labelled("zone", "c"), state: daemonset.Out,
			why: "affinity term 1 wants zone in (a, b), the node has zone=c; affinity term 2 wants gpu exists, the node has no label gpu"},
		"NoExecute": {ds: agent(), node: tainted("gone", "", corev1.TaintEffectNoExecute),
			pods:  func(ds *appsv1.DaemonSet) []*corev1.Pod { return []*corev1.Pod{pod(ds, "n")} },
			state: daemonset.Out, why: "taint gone:NoExecute is not tolerated; pod agent-n is still there and has to go"},
		"silent": {ds: agent(), node: unreachable, pods: func(ds *appsv1.DaemonSet) []*corev1.Pod { return []*corev1.Pod{pod(ds, "n", notReadyPod)} },
			state: daemonset.Out, why: "the node is silent: the last sign of life of its agent is 3m old; pod agent-n was there before and stays"},
		"not ready": {ds: agent(), node: func(n *corev1.Node) {
			n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionFalse, Reason: "KubeletNotReady", Message: "container runtime is down"}}
		}, state: daemonset.Pending, why: "the node is not ready: KubeletNotReady: container runtime is down"},
		"never reported": {ds: agent(), node: func(n *corev1.Node) {
			n.CreationTimestamp, n.Status.Conditions = metav1.NewTime(epoch.Add(-5*time.Minute)), nil
			tainted(corev1.TaintNodeNotReady, "", corev1.TaintEffectNoSchedule)(n)
		}, state: daemonset.Out, why: "the node is silent: no agent has reported for it since it was registered 5m ago"},
		"cordoned nodes are in": {ds: agent(), node: tainted(corev1.TaintNodeUnschedulable, "", corev1.TaintEffectNoSchedule),
			pods: func(ds *appsv1.DaemonSet) []*corev1.Pod { return []*corev1.Pod{pod(ds, "n")} }, state: daemonset.In},
		"memory": {ds: agent(asks("1m", "5Gi")), state: daemonset.Pending,
			why: "memory short by 1Gi: 5Gi asked, the node has 4Gi free; the node would be too small even if it were empty"},
		"pod count": {ds: agent(), node: maxPods("1"), pods: func(*appsv1.DaemonSet) []*corev1.Pod { return []*corev1.Pod{other("x", "n", "", 0)} },
			state: daemonset.Pending, why: "room for one more pod, the node has 1 of 1 pods"},
		"port": {ds: agent(hostPort(80)), pods: func(*appsv1.DaemonSet) []*corev1.Pod { return []*corev1.Pod{other("x", "n", "", 80)} },
			state: daemonset.Pending, why: "host port 80/TCP is held by pod web/x"},
		"scheduler": {ds: agent(antiAffinity), pods: func(ds *appsv1.DaemonSet) []*corev1.Pod {
			return []*corev1.Pod{pod(ds, "n", unboundPod("0/1 nodes are available"))}
		}, state: daemonset.Pending,
			why: "only the scheduler can judge: required pod anti-affinity; the scheduler has not bound the pod: 0/1 nodes are available"},
		"not created yet": {ds: agent(), state: daemonset.Pending, why: "no pod has been created yet"},
		"min ready": {ds: agent(minReady), pods: func(ds *appsv1.DaemonSet) []*corev1.Pod { return []*corev1.Pod{pod(ds, "n")} },
			state: daemonset.Pending, why: "the pod is ready, but not yet for minReadySeconds (3600)"},
		"readiness": {ds: agent(), pods: func(ds *appsv1.DaemonSet) []*corev1.Pod { return []*corev1.Pod{pod(ds, "n", notReadyPod)} },
			state: daemonset.Pending, why: "container agent: running, but not ready"},
		"OnDelete": {ds: agent(onDelete), pods: func(*appsv1.DaemonSet) []*corev1.Pod { return []*corev1.Pod{pod(agent(image("agent:0")), "n")} },
			state: daemonset.Updating, why: "the strategy is OnDelete, so it stays until someone deletes it"},
		"evicted": {ds: agent(), pods: func(ds *appsv1.DaemonSet) []*corev1.Pod {
			return []*corev1.Pod{pod(ds, "n", func(p *corev1.Pod) {
				p.Status = corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "The node was low on resource: memory."}
			})}
		}, state: daemonset.Failing, why: "pod agent-n, pod failed: Evicted: The node was low on resource: memory"},
		"out of memory": {ds: agent(), pods: func(ds *appsv1.DaemonSet) []*corev1.Pod {
			return []*corev1.Pod{pod(ds, "n", crashing, func(p *corev1.Pod) {
				p.Status.ContainerStatuses[0].LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"}
			})}
		}, state: daemonset.Failing, why: "container agent: CrashLoopBackOff, 5 restarts, last exit code 137 (OOMKilled)"},
		"init container": {ds: agent(), pods: func(ds *appsv1.DaemonSet) []*corev1.Pod {
			return []*corev1.Pod{pod(ds, "n", waitingFor("PodInitializing", ""), func(p *corev1.Pod) {
				p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "prepare", RestartCount: 2, State: corev1.ContainerState{
					Waiting: &corev1.ContainerStateWaiting{Reason: "CreateContainerConfigError", Message: `secret "s" not found`},
				}}}
			})}
		}, state: daemonset.Failing, why: `pod agent-n, container prepare: CreateContainerConfigError, 2 restarts: secret "s" not found`},
	} {
		t.Run(name, func(t *testing.T) {
			f := &Facts{Now: epoch, DaemonSet: c.ds, Nodes: []*corev1.Node{node("n")}}
			if c.node != nil {
				c.node(f.Nodes[0])
			}
			if c.pods != nil {
				f.Pods = c.pods(c.ds)
			}
			n := Why(f).Nodes[0]
			if n.State != c.state {
				t.Errorf("state %s, want %s", n.State, c.state)
			}
			if got := strings.Join(n.Why, "; "); (c.why == "") != (got == "") || !strings.Contains(got, c.why) {
				t.Errorf("says %q, want %q", got, c.why)
			}
			if n.State != daemonset.In && n.brief.key == "" {
				t.Error("has no place in the summary")
			}
		})
	}
}

func TestNever(t *testing.T) {
	for name, c := range map[string]struct {
		ds    *appsv1.DaemonSet
		nodes []*corev1.Node
		want  string
	}{
		"contradiction": {agent(selects(map[string]string{"disk": "ssd"}), needs(expression("disk", corev1.NodeSelectorOpNotIn, "ssd"))), nodes(2),
			"it can never run on any node: affinity term 1: disk not in (ssd) contradicts disk in (ssd)"},
		"no nodes": {agent(), nil, "it can run nowhere: there are no nodes"},
		"excluded": {agent(selects(map[string]string{"disk": "ssd"})), nodes(3), "no node may run it: 3 excluded by nodeSelector disk=ssd"},
		"too large": {agent(asks("1", "64Gi")), nodes(2),
			"no node is large enough for it, even empty: 2 memory short by 60Gi (memory 64Gi asked, the largest has 4Gi)"},
		"one will do": {agent(asks("2", "1Gi")), nodes(1), ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Why(&Facts{Now: epoch, DaemonSet: c.ds, Nodes: c.nodes}).Never; got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// Of a few named nodes nothing follows for the others.
func TestNeverOfSomeNodes(t *testing.T) {
	f := &Facts{Now: epoch, DaemonSet: agent(asks("64", "1Mi")), Nodes: nodes(1), Partial: true}
	if got := Why(f).Never; got != "" {
		t.Errorf("says %q", got)
	}
}

// The stored history says which revision is the current one; a server of another version may have written it in
// other bytes.
func TestRevision(t *testing.T) {
	ds := agent()
	data, err := daemonset.RevisionData(ds)
	if err != nil {
		t.Fatal(err)
	}
	stored := daemonset.NewRevision(ds, data, 3)
	stored.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] = "stored"
	foreign := stored.DeepCopy()
	foreign.Data.Raw = []byte(`{"spec":{}}`)
	stranger := stored.DeepCopy()
	stranger.OwnerReferences[0].UID = "another"
	behind := agent(func(ds *appsv1.DaemonSet) { ds.Generation = 2 })
	hash := daemonset.RevisionHash(&ds.Spec.Template, nil)
	for name, c := range map[string]struct {
		ds   *appsv1.DaemonSet
		r    *appsv1.ControllerRevision
		want string
	}{
		"stored":                    {ds, stored, "stored"},
		"other bytes":               {ds, foreign, "stored"},
		"other bytes, not seen yet": {behind, foreign, hash},
		"another's":                 {ds, stranger, hash},
	} {
		t.Run(name, func(t *testing.T) {
			f := Facts{DaemonSet: c.ds, Revisions: []*appsv1.ControllerRevision{c.r}}
			if got := f.Revision(); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}
