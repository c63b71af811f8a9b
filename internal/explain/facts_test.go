package explain

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/everynode/everynode/internal/decide/daemonset"
)

var update = flag.Bool("update", false, "write the golden files")

var epoch = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// golden compares with testdata/NAME, or writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("(-want +got; -update accepts):\n%s", d)
	}
}

// agent is DaemonSet ops/agent, as the API stores it.
func agent(changes ...func(*appsv1.DaemonSet)) *appsv1.DaemonSet {
	labels := map[string]string{"app": "agent"}
	ds := &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ops", Name: "agent", UID: "agent-uid", Generation: 1},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "agent", Image: "agent:1"}}},
			},
			UpdateStrategy: rolling("1", "0"),
		},
		Status: appsv1.DaemonSetStatus{ObservedGeneration: 1},
	}
	for _, change := range changes {
		change(ds)
	}
	return ds
}

func rolling(maxUnavailable, maxSurge string) appsv1.DaemonSetUpdateStrategy {
	u, s := intstr.Parse(maxUnavailable), intstr.Parse(maxSurge)
	return appsv1.DaemonSetUpdateStrategy{
		Type:          appsv1.RollingUpdateDaemonSetStrategyType,
		RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxUnavailable: &u, MaxSurge: &s},
	}
}

func asks(cpu, memory string) func(*appsv1.DaemonSet) {
	return func(ds *appsv1.DaemonSet) {
		ds.Spec.Template.Spec.Containers[0].Resources.Requests = corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory),
		}
	}
}

func hostPort(number int32) func(*appsv1.DaemonSet) {
	return func(ds *appsv1.DaemonSet) {
		ds.Spec.Template.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: number, ContainerPort: number, Protocol: corev1.ProtocolTCP}}
	}
}

func selects(labels map[string]string) func(*appsv1.DaemonSet) {
	return func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.NodeSelector = labels }
}

func needs(terms ...[]corev1.NodeSelectorRequirement) func(*appsv1.DaemonSet) {
	return func(ds *appsv1.DaemonSet) {
		s := &corev1.NodeSelector{}
		for _, t := range terms {
			s.NodeSelectorTerms = append(s.NodeSelectorTerms, corev1.NodeSelectorTerm{MatchExpressions: t})
		}
		ds.Spec.Template.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: s}}
	}
}

func expression(key string, op corev1.NodeSelectorOperator, values ...string) []corev1.NodeSelectorRequirement {
	return []corev1.NodeSelectorRequirement{{Key: key, Operator: op, Values: values}}
}

func strategy(s appsv1.DaemonSetUpdateStrategy) func(*appsv1.DaemonSet) {
	return func(ds *appsv1.DaemonSet) { ds.Spec.UpdateStrategy = s }
}

func image(name string) func(*appsv1.DaemonSet) {
	return func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.Containers[0].Image = name }
}

// node is ready, of 2 CPUs and 4 GiB.
func node(name string, changes ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/hostname": name}},
		Status: corev1.NodeStatus{
			Allocatable: corev1.ResourceList{
				corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("4Gi"), corev1.ResourcePods: resource.MustParse("110"),
			},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		},
	}
	for _, change := range changes {
		change(n)
	}
	return n
}

func nodes(n int) []*corev1.Node {
	var all []*corev1.Node
	for i := range n {
		all = append(all, node(fmt.Sprintf("n%02d", i+1)))
	}
	return all
}

func labelled(key, value string) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Labels[key] = value }
}

func tainted(key, value string, effect corev1.TaintEffect) func(*corev1.Node) {
	return func(n *corev1.Node) {
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Value: value, Effect: effect})
	}
}

// down is silent for three minutes.
func down(n *corev1.Node) {
	n.CreationTimestamp = metav1.NewTime(epoch.Add(-time.Hour))
	n.Status.Conditions = []corev1.NodeCondition{{
		Type: corev1.NodeReady, Status: corev1.ConditionUnknown, Reason: "NodeStatusUnknown", Message: "Kubelet stopped posting node status.",
		LastHeartbeatTime: metav1.NewTime(epoch.Add(-3 * time.Minute)), LastTransitionTime: metav1.NewTime(epoch.Add(-time.Minute)),
	}}
}

// unreachable is down, and tainted for it.
func unreachable(n *corev1.Node) {
	down(n)
	for _, effect := range []corev1.TaintEffect{corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute} {
		tainted(corev1.TaintNodeUnreachable, "", effect)(n)
	}
}

func maxPods(n string) func(*corev1.Node) {
	return func(x *corev1.Node) { x.Status.Allocatable[corev1.ResourcePods] = resource.MustParse(n) }
}

// pod is the DaemonSet's pod on a node: ready for ten minutes, unless changed.
func pod(ds *appsv1.DaemonSet, node string, changes ...func(*corev1.Pod)) *corev1.Pod {
	t := ds.Spec.Template
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: ds.Namespace, Name: ds.Name + "-" + node, UID: types.UID("pod-" + node), Labels: map[string]string{"app": "agent"},
			CreationTimestamp: metav1.NewTime(epoch.Add(-time.Hour)),
			OwnerReferences:   []metav1.OwnerReference{*metav1.NewControllerRef(ds, daemonset.Kind)},
		},
		Spec: *t.Spec.DeepCopy(),
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning,
			Conditions: []corev1.PodCondition{{
				Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(epoch.Add(-10 * time.Minute)),
			}},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "agent", Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}},
		},
	}
	p.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] = daemonset.RevisionHash(&t, nil)
	p.Spec.NodeName = node
	for _, change := range changes {
		change(p)
	}
	return p
}

func notReadyPod(p *corev1.Pod) {
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse, Reason: "ContainersNotReady"}}
	p.Status.ContainerStatuses[0].Ready = false
}

func crashing(p *corev1.Pod) {
	notReadyPod(p)
	c := &p.Status.ContainerStatuses[0]
	c.RestartCount = 5
	c.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: "back-off 2m40s restarting failed container"}}
	c.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{
		ExitCode: 1, Reason: "Error", Message: "no such file:\n/etc/agent.yaml", FinishedAt: metav1.NewTime(epoch.Add(-90 * time.Second)),
	}
}

func waitingFor(reason, message string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		notReadyPod(p)
		p.Status.Phase = corev1.PodPending
		p.Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
	}
}

// unboundPod waits for the scheduler.
func unboundPod(message string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: expression("metadata.name", corev1.NodeSelectorOpIn, p.Spec.NodeName)}},
		}}}
		p.Spec.NodeName = ""
		p.Status = corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: message,
		}}}
	}
}

// other is a pod of somebody else that takes room.
func other(name, node, cpu string, port int32) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: name, UID: types.UID("other-" + name)},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c"}}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning},
	}
	if cpu != "" {
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}
	}
	if port > 0 {
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: port, Protocol: corev1.ProtocolTCP}}
	}
	return p
}

// objects are all facts as a server would have them.
func (f *Facts) objects() []runtime.Object {
	var all []runtime.Object
	if f.DaemonSet != nil {
		all = append(all, f.DaemonSet)
	}
	for _, n := range f.Nodes {
		all = append(all, n)
	}
	for _, p := range f.Pods {
		all = append(all, p)
	}
	for _, r := range f.Revisions {
		all = append(all, r)
	}
	return all
}

// printed is a report in both tables.
func printed(t *testing.T, print func(*strings.Builder, Format) error) string {
	t.Helper()
	var b strings.Builder
	for _, f := range []Format{Table, Wide} {
		fmt.Fprintf(&b, "# %s\n", f)
		if err := print(&b, f); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}
