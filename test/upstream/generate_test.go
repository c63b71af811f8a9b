package upstream

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"
)

// The vocabularies are small, so that what is drawn from them meets often.
var (
	labelKeys   = []string{"zone", "disk", "size"}
	labelValues = []string{"a", "b", "7", "12", ""}
	taintKeys   = []string{
		"gpu", "dedicated", corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable, corev1.TaintNodeDiskPressure,
		corev1.TaintNodeMemoryPressure, corev1.TaintNodePIDPressure, corev1.TaintNodeUnschedulable,
		corev1.TaintNodeNetworkUnavailable,
	}
	taintValues = []string{"", "yes", "5"}
	effects     = []corev1.TaintEffect{corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute, corev1.TaintEffectPreferNoSchedule}
)

func oneOf[T any](all ...T) *rapid.Generator[T] { return rapid.SampledFrom(all) }

// chance is true once in n.
func chance(t *rapid.T, n int) bool { return rapid.IntRange(1, n).Draw(t, "chance") == n }

func several[T any](t *rapid.T, most int, draw func(*rapid.T) T) []T {
	var all []T
	for range rapid.IntRange(0, most).Draw(t, "how many") {
		all = append(all, draw(t))
	}
	return all
}

func drawLabels(t *rapid.T, most int) map[string]string {
	labels := map[string]string{}
	for range rapid.IntRange(0, most).Draw(t, "labels") {
		labels[oneOf(labelKeys...).Draw(t, "key")] = oneOf(labelValues...).Draw(t, "value")
	}
	return labels
}

func drawTaint(t *rapid.T) corev1.Taint {
	return corev1.Taint{
		Key: oneOf(taintKeys...).Draw(t, "taint"), Value: oneOf(taintValues...).Draw(t, "value"),
		Effect: oneOf(effects...).Draw(t, "effect"),
	}
}

// drawNode returns a node with labels and taints.
func drawNode(t *rapid.T, name string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: drawLabels(t, 3)},
		Spec:       corev1.NodeSpec{Taints: several(t, 2, drawTaint)},
	}
}

// roomy is what a node offers to pods that ask for little.
func roomy() corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("8Gi"),
		corev1.ResourcePods: resource.MustParse("110"),
	}
}

// drawToleration makes every shape, those too that the API refuses: they may be stored from before.
func drawToleration(t *rapid.T) corev1.Toleration {
	tol := corev1.Toleration{
		Key:      oneOf(append([]string{""}, taintKeys...)...).Draw(t, "key"),
		Operator: oneOf[corev1.TolerationOperator]("", corev1.TolerationOpEqual, corev1.TolerationOpExists, corev1.TolerationOpLt, corev1.TolerationOpGt, "Odd").Draw(t, "operator"),
		Value:    oneOf(taintValues...).Draw(t, "value"),
		Effect:   oneOf(append([]corev1.TaintEffect{""}, effects...)...).Draw(t, "effect"),
	}
	if chance(t, 4) {
		seconds := rapid.Int64Range(-1, 300).Draw(t, "seconds")
		tol.TolerationSeconds = &seconds
	}
	return tol
}

func drawExpression(t *rapid.T) corev1.NodeSelectorRequirement {
	return corev1.NodeSelectorRequirement{
		Key: oneOf(append([]string{"not a key!"}, labelKeys...)...).Draw(t, "key"),
		Operator: oneOf(corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn, corev1.NodeSelectorOpExists,
			corev1.NodeSelectorOpDoesNotExist, corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt, "Odd").Draw(t, "operator"),
		Values: several(t, 2, func(t *rapid.T) string { return oneOf(labelValues...).Draw(t, "value") }),
	}
}

func drawField(t *rapid.T) corev1.NodeSelectorRequirement {
	return corev1.NodeSelectorRequirement{
		Key:      oneOf(metav1.ObjectNameField, metav1.ObjectNameField, metav1.ObjectNameField, "metadata.uid").Draw(t, "field"),
		Operator: oneOf(corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn, corev1.NodeSelectorOpExists, "Odd").Draw(t, "operator"),
		Values:   several(t, 2, func(t *rapid.T) string { return oneOf("node-0", "node-1", "node-2", "").Draw(t, "name") }),
	}
}

func drawTerm(t *rapid.T) corev1.NodeSelectorTerm {
	return corev1.NodeSelectorTerm{
		MatchExpressions: several(t, 2, drawExpression),
		MatchFields:      several(t, 1, drawField),
	}
}

func drawNodeAffinity(t *rapid.T) *corev1.Affinity {
	a := &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{}}
	if !chance(t, 5) {
		a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{NodeSelectorTerms: several(t, 3, drawTerm)}
	}
	for _, term := range several(t, 1, drawTerm) {
		a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution = append(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution,
			corev1.PreferredSchedulingTerm{Weight: 1, Preference: term})
	}
	return a
}

// drawDaemonSet returns a DaemonSet whose template asks for some nodes and not for others.
func drawDaemonSet(t *rapid.T) *appsv1.DaemonSet {
	ds := newDaemonSet()
	spec := &ds.Spec.Template.Spec
	spec.Tolerations = several(t, 3, drawToleration)
	spec.HostNetwork = chance(t, 3)
	if chance(t, 3) {
		spec.NodeSelector = drawLabels(t, 2)
	}
	if chance(t, 2) {
		spec.Affinity = drawNodeAffinity(t)
	}
	if chance(t, 8) {
		spec.NodeName = oneOf("node-0", "node-1").Draw(t, "nodeName")
	}
	return ds
}

// newDaemonSet returns the DaemonSet ops/agent as the API would store it.
func newDaemonSet() *appsv1.DaemonSet {
	labels := map[string]string{"app": "agent"}
	one, zero, limit := intstr.FromInt32(1), intstr.FromInt32(0), int32(2)
	return &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ops", Name: "agent", UID: "ds-1", Generation: 1},
		Spec: appsv1.DaemonSetSpec{
			Selector:             &metav1.LabelSelector{MatchLabels: labels},
			RevisionHistoryLimit: &limit,
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "agent", Image: "agent:1"}}},
			},
			UpdateStrategy: appsv1.DaemonSetUpdateStrategy{
				Type:          appsv1.RollingUpdateDaemonSetStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxUnavailable: &one, MaxSurge: &zero},
			},
		},
	}
}

func drawQuantities(t *rapid.T, of map[corev1.ResourceName][]string) corev1.ResourceList {
	list := corev1.ResourceList{}
	for _, name := range []corev1.ResourceName{
		corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage, "example.com/card", "hugepages-2Mi",
	} {
		if amounts := of[name]; len(amounts) > 0 && !chance(t, 3) {
			list[name] = oneOfQuantities(t, amounts...)
		}
	}
	return list
}

func oneOfQuantities(t *rapid.T, amounts ...string) resource.Quantity {
	return resource.MustParse(oneOf(amounts...).Draw(t, "amount"))
}

func nodeName(i int) string { return fmt.Sprintf("node-%d", i) }
