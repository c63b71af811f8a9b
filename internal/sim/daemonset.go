package sim

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// setUID is that of the DaemonSet in every world: pod names follow from it.
const setUID types.UID = "11111111-2222-4333-8444-555555555555"

// DefaultDaemonSet is what is rolled out when the user names nothing: a small agent on every Linux node.
func DefaultDaemonSet() *appsv1.DaemonSet {
	app := map[string]string{"app": "agent"}
	return &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "agent"},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: app},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: app},
				Spec: corev1.PodSpec{
					NodeSelector: map[string]string{corev1.LabelOSStable: "linux"},
					Containers: []corev1.Container{{Name: "agent", Image: "agent:1", Resources: corev1.ResourceRequirements{
						Requests: corev1.ResourceList{
							corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("64Mi"),
						},
					}}},
				},
			},
		},
	}
}

// validateDaemonSet checks what the API would, as far as the machine relies on it.
func validateDaemonSet(ds *appsv1.DaemonSet) error {
	if ds.Name == "" {
		return fmt.Errorf("the DaemonSet has no metadata.name")
	}
	s, err := metav1.LabelSelectorAsSelector(ds.Spec.Selector)
	switch {
	case err != nil:
		return fmt.Errorf("DaemonSet %s: spec.selector: %w", ds.Name, err)
	case s.Empty():
		return fmt.Errorf("DaemonSet %s: spec.selector is empty: it must select the template's labels", ds.Name)
	case !s.Matches(labels.Set(ds.Spec.Template.Labels)):
		return fmt.Errorf("DaemonSet %s: spec.selector (%s) does not match spec.template.metadata.labels", ds.Name, s)
	case len(ds.Spec.Template.Spec.Containers) == 0:
		return fmt.Errorf("DaemonSet %s: spec.template.spec.containers is empty", ds.Name)
	}
	return validateStrategy(ds)
}

func validateStrategy(ds *appsv1.DaemonSet) error {
	switch ds.Spec.UpdateStrategy.Type {
	case "", appsv1.RollingUpdateDaemonSetStrategyType:
	case appsv1.OnDeleteDaemonSetStrategyType:
		return nil
	default:
		return fmt.Errorf("DaemonSet %s: spec.updateStrategy.type is %q, want RollingUpdate or OnDelete", ds.Name, ds.Spec.UpdateStrategy.Type)
	}
	r := ds.Spec.UpdateStrategy.RollingUpdate
	if r == nil {
		return nil
	}
	unavailable, err := amount("maxUnavailable", r.MaxUnavailable, 1)
	if err != nil {
		return fmt.Errorf("DaemonSet %s: %w", ds.Name, err)
	}
	surge, err := amount("maxSurge", r.MaxSurge, 0)
	if err != nil {
		return fmt.Errorf("DaemonSet %s: %w", ds.Name, err)
	}
	if (unavailable == 0) == (surge == 0) {
		return fmt.Errorf("DaemonSet %s: exactly one of maxUnavailable and maxSurge must be above 0", ds.Name)
	}
	return nil
}

// amount checks one field of a rolling update and returns what it is of 100 nodes.
func amount(field string, v *intstr.IntOrString, unset int) (int, error) {
	if v == nil {
		return unset, nil
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(v, 100, true)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%s: %w", field, err)
	case n < 0, v.Type == intstr.String && n > 100:
		return 0, fmt.Errorf("%s is %s, want a number from 0, or 0%% to 100%%", field, v)
	}
	return n, nil
}

// stored is the DaemonSet as the API would keep it: with defaults, and without a history.
func stored(ds *appsv1.DaemonSet) *appsv1.DaemonSet {
	ds = ds.DeepCopy()
	if ds.Namespace == "" {
		ds.Namespace = metav1.NamespaceDefault
	}
	ds.UID, ds.Generation, ds.Status, ds.DeletionTimestamp = setUID, 1, appsv1.DaemonSetStatus{}, nil
	st := &ds.Spec.UpdateStrategy
	if st.Type == "" {
		st.Type = appsv1.RollingUpdateDaemonSetStrategyType
	}
	if st.Type != appsv1.RollingUpdateDaemonSetStrategyType {
		return ds
	}
	if st.RollingUpdate == nil {
		st.RollingUpdate = &appsv1.RollingUpdateDaemonSet{}
	}
	one, none := intstr.FromInt32(1), intstr.FromInt32(0)
	if st.RollingUpdate.MaxUnavailable == nil {
		st.RollingUpdate.MaxUnavailable = &one
	}
	if st.RollingUpdate.MaxSurge == nil {
		st.RollingUpdate.MaxSurge = &none
	}
	return ds
}

// budget is what the update strategy allows at once, out of that many nodes: unavailable ones, or extra pods.
func budget(ds *appsv1.DaemonSet, nodes int) (unavailable, surge int) {
	r := ds.Spec.UpdateStrategy.RollingUpdate
	if r == nil {
		return 0, 0
	}
	unavailable, _ = intstr.GetScaledValueFromIntOrPercent(r.MaxUnavailable, nodes, true)
	surge, _ = intstr.GetScaledValueFromIntOrPercent(r.MaxSurge, nodes, true)
	return unavailable, surge
}
