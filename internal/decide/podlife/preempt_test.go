package podlife

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"
)

// podAsking is a pod such as "a 500m 100Mi", guaranteed with "g " in front.
func podAsking(text string) *corev1.Pod {
	guaranteed := strings.HasPrefix(text, "g ")
	fields := strings.Fields(strings.TrimPrefix(text, "g "))
	r := corev1.ResourceRequirements{}
	if len(fields) == 3 {
		r.Requests = requests(fields[1], fields[2])
		if guaranteed {
			r.Limits = r.Requests
		}
	}
	pod := podWith(corev1.Container{Resources: r})
	pod.Name = fields[0]
	return pod
}

func critical(pod *corev1.Pod) *corev1.Pod {
	pod.Spec.Priority = ptr.To[int32](CriticalPriority)
	return pod
}

func names(pods []*corev1.Pod) string {
	var list []string
	for _, p := range pods {
		list = append(list, p.Name)
	}
	return strings.Join(list, " ")
}

func TestPreempt(t *testing.T) {
	room := requests("2", "2Gi")
	room[corev1.ResourcePods] = resource.MustParse("4")
	for _, c := range []struct {
		name, pod string
		others    []string
		want      string
	}{
		{"there is room", "c 500m 1Gi", []string{"a 500m 1Gi"}, ""},
		{"the one that suffices", "c 500m 1Gi", []string{"small 500m 1Mi", "large 1500m 1Mi"}, "small"},
		{"the smaller of two that do", "c 1 1Gi", []string{"x 1 900Mi", "y 1 500Mi"}, "y"},
		{"burstable before guaranteed", "c 1 1Mi", []string{"g g1 1 1Mi", "b 1 1Mi"}, "b"},
		{"both if need be", "c 2 1Mi", []string{"g g1 1 1Mi", "b 1 1Mi"}, "b g1"},
		{"a place among the pods costs a best-effort one", "c 1m 1Mi", []string{"b 1m 1Mi", "e", "x 1m 1Mi", "y 1m 1Mi"}, "e"},
		{"one pod that gives both", "c 1 1Gi", []string{"cpu 1 1Mi", "both 1 1500Mi"}, "both"},
	} {
		var others []*corev1.Pod
		for _, text := range c.others {
			others = append(others, podAsking(text))
		}
		got := Admit(critical(podAsking(c.pod)), others, Host{Allocatable: room})
		if got.Rejected != nil || names(got.Preempted) != c.want {
			t.Errorf("%s: preempts %q, rejected %v; want %q", c.name, names(got.Preempted), got.Rejected, c.want)
		}
	}
}

func TestPreemptionHasLimits(t *testing.T) {
	room := requests("1", "1Gi")
	static := podAsking("static 1 1Gi")
	static.Annotations = map[string]string{"kubernetes.io/config.source": "file"}
	port := func(p *corev1.Pod) *corev1.Pod {
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 80}}
		return p
	}
	for _, c := range []struct {
		name   string
		pod    *corev1.Pod
		others []*corev1.Pod
		want   Verdict
	}{
		{"an ordinary pod preempts nobody", podAsking("p 500m 1Mi"), []*corev1.Pod{podAsking("a 600m 1Mi")},
			Verdict{"OutOfcpu", "Node didn't have enough resource: cpu, requested: 500, used: 600, capacity: 1000"}},
		{"other critical pods stay", critical(podAsking("p 500m 1Mi")), []*corev1.Pod{critical(podAsking("a 600m 1Mi"))},
			Verdict{"UnexpectedAdmissionError", "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods to preempt: no set of running pods found to reclaim resources: [(res: cpu, q: 100), ]"}},
		{"static pods stay", critical(podAsking("p 500m 1Mi")), []*corev1.Pod{static},
			Verdict{"UnexpectedAdmissionError", "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods to preempt: no set of running pods found to reclaim resources: [(res: cpu, q: 500), (res: memory, q: 1048576), ]"}},
		{"nobody goes where that does not help", critical(port(podAsking("p 500m 1Mi"))), []*corev1.Pod{port(podAsking("a 600m 1Mi"))},
			Verdict{"NodePorts", "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"}},
	} {
		got := Admit(c.pod, c.others, Host{Allocatable: room})
		if got.Rejected == nil || *got.Rejected != c.want || len(got.Preempted) > 0 {
			t.Errorf("%s: %+v, preempts %s\nwant %+v", c.name, got.Rejected, names(got.Preempted), c.want)
		}
	}
}

// TestPreemptionSuffices: whoever is preempted is enough.
func TestPreemptionSuffices(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var others []*corev1.Pod
		for i := range rapid.IntRange(0, 8).Draw(t, "others") {
			text := fmt.Sprintf("p%d %dm %dMi", i, rapid.IntRange(0, 800).Draw(t, "cpu"), rapid.IntRange(0, 800).Draw(t, "memory"))
			if rapid.Bool().Draw(t, "guaranteed") {
				text = "g " + text
			}
			others = append(others, podAsking(text))
		}
		pod := critical(podAsking(fmt.Sprintf("c %dm %dMi", rapid.IntRange(0, 1000).Draw(t, "cpu"), rapid.IntRange(0, 1000).Draw(t, "memory"))))
		host := Host{Allocatable: requests("1", "1000Mi")}
		got := Admit(pod, others, host)
		if got.Rejected != nil {
			// The node may have been too full before, and nobody can make up for that.
			return
		}
		left := func(gone []*corev1.Pod) []*corev1.Pod {
			var list []*corev1.Pod
			for _, o := range others {
				if !strings.Contains(" "+names(gone)+" ", " "+o.Name+" ") {
					list = append(list, o)
				}
			}
			return list
		}
		if short := shortages(pod, left(got.Preempted), host.Allocatable, resizable); len(short) > 0 {
			t.Fatalf("still short of %v after %s", short, names(got.Preempted))
		}
	})
}
