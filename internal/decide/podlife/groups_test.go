package podlife

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestStrictGroups(t *testing.T) {
	strict, merge := corev1.SupplementalGroupsPolicyStrict, corev1.SupplementalGroupsPolicyMerge
	with := func(p *corev1.SupplementalGroupsPolicy) *corev1.Pod {
		return &corev1.Pod{Spec: corev1.PodSpec{SecurityContext: &corev1.PodSecurityContext{SupplementalGroupsPolicy: p}}}
	}
	knows := &corev1.Node{Status: corev1.NodeStatus{Features: &corev1.NodeFeatures{SupplementalGroupsPolicy: new(true)}}}
	for i, c := range []struct {
		pod     *corev1.Pod
		node    *corev1.Node
		refused bool
	}{
		{with(&strict), &corev1.Node{}, true}, {with(&strict), knows, false}, {with(&strict), nil, false},
		{with(&merge), &corev1.Node{}, false}, {with(nil), &corev1.Node{}, false},
	} {
		if v := Admit(c.pod, nil, Host{Node: c.node}).Rejected; (v != nil) != c.refused || v != nil && v.Reason != "SupplementalGroupsPolicyNotSupported" {
			t.Errorf("%d: %v", i, v)
		}
	}
}
