package integration

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// placement schedules the pods of the seeds' with-node-affinity and with-pod-affinity.
func placement(t *testing.T, c *cluster) {
	ns := c.namespace(t, "placement")
	zone := func(z string) *corev1.NodeSelector {
		return &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
			{Key: "zone", Operator: corev1.NodeSelectorOpIn, Values: []string{z}}}}}}
	}
	near := []corev1.PodAffinityTerm{{LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "first"}}, TopologyKey: "zone"}}
	for _, step := range []struct {
		pod, node string
		change    func(*corev1.PodSpec)
	}{
		{"first", "n2", func(s *corev1.PodSpec) {
			s.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: zone("b")}}
		}},
		{"near", "n2", func(s *corev1.PodSpec) {
			s.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: near}}
		}},
		{"far", "n1", func(s *corev1.PodSpec) {
			s.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: near}}
		}},
		{"selected", "n2", func(s *corev1.PodSpec) { s.NodeSelector = map[string]string{"disk": "ssd"} }},
	} {
		p := c.pod(t, ns, step.pod, func(p *corev1.Pod) { step.change(&p.Spec) })
		if n := c.placed(t, p); n != step.node {
			t.Errorf("pod %s is on %s, want %s", step.pod, n, step.node)
		}
	}
	await(t, "the event Scheduled", func() (bool, string) {
		l, err := c.CoreV1().Events(ns).List(t.Context(), metav1.ListOptions{FieldSelector: "reason=Scheduled,involvedObject.name=first"})
		return err == nil && len(l.Items) == 1, fmt.Sprint(len(l.Items), err)
	})
}

// unschedulable waits for the pod's condition and event, and wants text in both.
func (c *cluster) unschedulable(t *testing.T, p *corev1.Pod, text string) {
	t.Helper()
	await(t, "condition of "+p.Name+" says "+text, func() (bool, string) {
		now, err := c.CoreV1().Pods(p.Namespace).Get(t.Context(), p.Name, metav1.GetOptions{})
		got := fmt.Sprint(now.Status.Conditions, err)
		return strings.Contains(got, "Unschedulable") && strings.Contains(got, text), got
	})
	await(t, "event FailedScheduling of "+p.Name, func() (bool, string) {
		l, err := c.CoreV1().Events(p.Namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "reason=FailedScheduling,involvedObject.name=" + p.Name})
		if err != nil || len(l.Items) == 0 {
			return false, fmt.Sprint(l.Items, err)
		}
		return strings.Contains(l.Items[0].Message, text), l.Items[0].Message
	})
}

func failedScheduling(t *testing.T, c *cluster) {
	ns := c.namespace(t, "failed")
	p := c.pod(t, ns, "nowhere", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "tape"} })
	c.unschedulable(t, p, "didn't match Pod's node affinity/selector")
}

func resourceClaims(t *testing.T, c *cluster) {
	ns := c.namespace(t, "claims")
	p := c.pod(t, ns, "gpu", func(p *corev1.Pod) {
		p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimName: ptr.To("none")}}
	})
	c.unschedulable(t, p, "none")
}

// reserved makes a node of 2 CPUs for one test alone.
func reserved(t *testing.T, c *cluster, name string) func(*corev1.Pod) {
	c.node(t, name, map[string]string{"for": name})
	return func(p *corev1.Pod) {
		p.Spec.NodeSelector = map[string]string{"for": name}
		p.Spec.Containers[0].Resources = cpu("1500m")
	}
}

// endedPods: a pod that has ended takes no room, though it is still there.
func endedPods(t *testing.T, c *cluster) {
	ctx, ns, on := t.Context(), c.namespace(t, "ended"), reserved(t, c, "small")
	first := c.pod(t, ns, "first", on)
	c.placed(t, first)
	second := c.pod(t, ns, "second", on)
	c.unschedulable(t, second, "Insufficient cpu")
	await(t, "the first ends", func() (bool, string) {
		first, _ = c.CoreV1().Pods(ns).Get(ctx, "first", metav1.GetOptions{})
		first.Status.Phase = corev1.PodSucceeded
		_, err := c.CoreV1().Pods(ns).UpdateStatus(ctx, first, metav1.UpdateOptions{})
		return err == nil, fmt.Sprint(err)
	})
	c.placed(t, second)
}

func preemption(t *testing.T, c *cluster) {
	ctx, ns, on := t.Context(), c.namespace(t, "preempt"), reserved(t, c, "tight")
	must[*schedulingv1.PriorityClass](t)(c.SchedulingV1().PriorityClasses().Create(ctx, &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "important"}, Value: 1000}, metav1.CreateOptions{}))
	low := c.pod(t, ns, "low", on)
	c.placed(t, low)
	high := c.pod(t, ns, "high", func(p *corev1.Pod) { on(p); p.Spec.PriorityClassName = "important" })
	await(t, "low is preempted", func() (bool, string) {
		p, err := c.CoreV1().Pods(ns).Get(ctx, "low", metav1.GetOptions{})
		if ok, _ := gone(nil, err); ok {
			return true, ""
		}
		if p.DeletionTimestamp != nil { // an agent would end it now
			_ = c.CoreV1().Pods(ns).Delete(ctx, "low", metav1.DeleteOptions{GracePeriodSeconds: ptr.To(int64(0))})
		}
		return false, fmt.Sprint(p.DeletionTimestamp, p.Status.Conditions)
	})
	if n := c.placed(t, high); n != "tight" {
		t.Errorf("high is on %s", n)
	}
	await(t, "the event Preempted", func() (bool, string) {
		l, err := c.CoreV1().Events(ns).List(ctx, metav1.ListOptions{FieldSelector: "reason=Preempted,involvedObject.name=low"})
		return err == nil && len(l.Items) > 0, fmt.Sprint(len(l.Items), err)
	})
}
