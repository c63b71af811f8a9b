package podlife

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func requests(cpu, memory string) corev1.ResourceList {
	list := corev1.ResourceList{}
	if cpu != "" {
		list[corev1.ResourceCPU] = resource.MustParse(cpu)
	}
	if memory != "" {
		list[corev1.ResourceMemory] = resource.MustParse(memory)
	}
	return list
}

func podWith(cs ...corev1.Container) *corev1.Pod {
	return &corev1.Pod{Spec: corev1.PodSpec{Containers: cs}}
}

func TestQOS(t *testing.T) {
	for _, c := range []struct {
		name             string
		requests, limits corev1.ResourceList
		want             corev1.PodQOSClass
	}{
		{"nothing asked", nil, nil, corev1.PodQOSBestEffort},
		{"zero asked", requests("0", ""), nil, corev1.PodQOSBestEffort},
		{"cpu asked", requests("1", ""), nil, corev1.PodQOSBurstable},
		{"limits only", nil, requests("1", "1Gi"), corev1.PodQOSGuaranteed},
		{"limits equal requests", requests("1", "1Gi"), requests("1", "1Gi"), corev1.PodQOSGuaranteed},
		{"one limit missing", requests("1", "1Gi"), requests("1", ""), corev1.PodQOSBurstable},
		{"limit above request", requests("1", "1Gi"), requests("2", "1Gi"), corev1.PodQOSBurstable},
	} {
		pod := podWith(corev1.Container{Resources: corev1.ResourceRequirements{Requests: c.requests, Limits: c.limits}})
		if got := QOS(pod); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestAdmit(t *testing.T) {
	web := func(port int32, ip string, p corev1.Protocol) *corev1.Pod {
		return podWith(corev1.Container{Ports: []corev1.ContainerPort{{HostPort: port, HostIP: ip, Protocol: p}}})
	}
	asks := func(cpu string) *corev1.Pod {
		return podWith(corev1.Container{Resources: corev1.ResourceRequirements{Requests: requests(cpu, "")}})
	}
	room := requests("2", "1Gi")
	room[corev1.ResourcePods] = resource.MustParse("3")
	windows := podWith(corev1.Container{})
	windows.Spec.OS = &corev1.PodOS{Name: corev1.Windows}
	with := func(p *corev1.Pod, edits ...func(*corev1.Pod)) *corev1.Pod {
		for _, edit := range edits {
			edit(p)
		}
		return p
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"zone": "a"}}}
	node.Spec.Taints = []corev1.Taint{{Key: "broken", Effect: corev1.TaintEffectNoExecute}, {Key: "soft", Effect: corev1.TaintEffectNoSchedule}}
	for _, c := range []struct {
		name   string
		pod    *corev1.Pod
		others []*corev1.Pod
		want   string
	}{
		{"alone", web(80, "", ""), nil, ""},
		{"port taken", web(80, "", ""), []*corev1.Pod{web(80, "", "TCP")}, "NodePorts"},
		{"port taken on all addresses", web(80, "10.0.0.1", ""), []*corev1.Pod{web(80, "", "")}, "NodePorts"},
		{"port taken on another address", web(80, "10.0.0.1", ""), []*corev1.Pod{web(80, "10.0.0.2", "")}, ""},
		{"port taken by another protocol", web(53, "", "UDP"), []*corev1.Pod{web(53, "", "TCP")}, ""},
		{"no host port", web(0, "", ""), []*corev1.Pod{web(0, "", "")}, ""},
		{"cpu fits exactly", asks("500m"), []*corev1.Pod{asks("1500m")}, ""},
		{"cpu is short", asks("600m"), []*corev1.Pod{asks("1500m")}, "OutOfcpu"},
		{"too many pods", asks(""), []*corev1.Pod{asks(""), asks(""), asks("")}, "OutOfpods"},
		{"another system", windows, nil, "PodOSNotSupported"},
		{"huge pages that the node has not", with(podWith(corev1.Container{Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"hugepages-2Mi": resource.MustParse("2Mi")}}})), nil, "OutOfhugepages-2Mi"},
		{"a device that the node does not know", with(podWith(corev1.Container{Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"example.com/gpu": resource.MustParse("1")}}})), nil, ""},
		{"another label", with(podWith(), func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "ssd"} }), nil, "NodeAffinity"},
		{"its label", with(podWith(), func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"zone": "a"} }), nil, ""},
		{"a taint that drives pods out", with(podWith(), func(p *corev1.Pod) { p.Spec.Tolerations = nil }), nil, "TaintToleration"},
		{"a static pod is not driven out", with(podWith(), func(p *corev1.Pod) {
			p.Spec.Tolerations, p.Annotations = nil, map[string]string{"kubernetes.io/config.source": "file"}
		}), nil, ""},
	} {
		got := ""
		if len(c.pod.Spec.Tolerations) == 0 && c.want != TaintToleration && !Static(c.pod) {
			c.pod.Spec.Tolerations = []corev1.Toleration{{Key: "broken", Operator: corev1.TolerationOpExists}}
		}
		if v := Admit(c.pod, c.others, Host{Node: node, Allocatable: room}).Rejected; v != nil {
			got = v.Reason
		}
		if got != c.want {
			t.Errorf("%s: reason %q, want %q", c.name, got, c.want)
		}
	}
}

func TestRequestCountsInitContainersAndSidecars(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	c := func(cpu string) corev1.Container {
		return corev1.Container{Resources: corev1.ResourceRequirements{Requests: requests(cpu, "")}}
	}
	side := c("100m")
	side.RestartPolicy = &always
	pod := podWith(c("200m"), c("300m"))
	pod.Spec.InitContainers = []corev1.Container{side, c("1")}
	if got := Request(pod, corev1.ResourceCPU); got.MilliValue() != 1100 {
		t.Errorf("init container beside the sidecar: %s, want 1100m", got.String())
	}
	pod.Spec.InitContainers = []corev1.Container{side, c("50m")}
	if got := Request(pod, corev1.ResourceCPU); got.MilliValue() != 600 {
		t.Errorf("containers beside the sidecar: %s, want 600m", got.String())
	}
}

func TestRestartRules(t *testing.T) {
	policy := func(p corev1.ContainerRestartPolicy) *corev1.ContainerRestartPolicy { return &p }
	rules := []corev1.ContainerRestartRule{{Action: corev1.ContainerRestartRuleActionRestart, ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{
		Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42},
	}}}
	for _, c := range []struct {
		name      string
		pod       corev1.RestartPolicy
		container corev1.Container
		code      int32
		want      bool
	}{
		{"always, success", corev1.RestartPolicyAlways, corev1.Container{}, 0, true},
		{"on failure, success", corev1.RestartPolicyOnFailure, corev1.Container{}, 0, false},
		{"on failure, failure", corev1.RestartPolicyOnFailure, corev1.Container{}, 1, true},
		{"never, failure", corev1.RestartPolicyNever, corev1.Container{}, 1, false},
		{"container's own policy", corev1.RestartPolicyAlways, corev1.Container{RestartPolicy: policy(corev1.ContainerRestartPolicyNever)}, 1, false},
		{"a rule's exit code", corev1.RestartPolicyNever, corev1.Container{RestartPolicy: policy(corev1.ContainerRestartPolicyNever), RestartPolicyRules: rules}, 42, true},
		{"no rule's exit code", corev1.RestartPolicyAlways, corev1.Container{RestartPolicy: policy(corev1.ContainerRestartPolicyNever), RestartPolicyRules: rules}, 1, false},
	} {
		if got := wantsRestart(&corev1.PodSpec{RestartPolicy: c.pod}, &c.container, c.code); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestRestartDelays(t *testing.T) {
	var d time.Duration
	var got []string
	for range 8 {
		got = append(got, d.String())
		d = longer(d)
	}
	want := []string{"0s", "10s", "20s", "40s", "1m20s", "2m40s", "5m0s", "5m0s"}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("delays %v, want %v", got, want)
		}
	}
}

func TestHashNeverChanges(t *testing.T) {
	// Kept with running containers: another value would restart all of them.
	if got := Hash(&corev1.Container{Name: "web", Image: "nginx:1.25"}); got != 0x91d50a1ded99d583 {
		t.Errorf("hash %#x", got)
	}
}

// TestInterruptedStart: a container that the runtime gave up while it was starting
// is made anew under its number; one that was reported as running is counted.
func TestInterruptedStart(t *testing.T) {
	pod := podWith(corev1.Container{Name: "c"})
	defaults(pod)
	w := newWorld(pod)
	w.hold[StartContainer] = true
	w.settle()
	clear(w.f.InFlight)
	w.f.Containers = []Container{{ID: "c-0", Name: "c", SandboxID: "sandbox-0", State: Exited, ExitCode: 255, Reason: "Unknown", Interrupted: true, Finished: w.now}}
	plan := Decide(w.f, w.now)
	if len(plan.Steps) != 1 || plan.Steps[0].Kind != RemoveContainer {
		t.Fatalf("steps %+v, want its removal", plan.Steps)
	}
	w.perform(plan.Steps[0])
	plan = Decide(w.f, w.now)
	if len(plan.Steps) != 1 || plan.Steps[0].Kind != StartContainer || plan.Steps[0].Attempt != 0 {
		t.Fatalf("steps %+v, want attempt 0 again", plan.Steps)
	}
	w.f.Containers = []Container{{ID: "c-0", Name: "c", SandboxID: "sandbox-0", State: Exited, ExitCode: 255, Reason: "Unknown", Interrupted: true, Finished: w.now}}
	w.f.Reported.ContainerStatuses[0].ContainerID = publicID("c-0")
	w.f.Reported.ContainerStatuses[0].State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(w.now)}}
	plan = Decide(w.f, w.now)
	if len(plan.Steps) != 1 || plan.Steps[0].Kind != StartContainer || plan.Steps[0].Attempt != 1 {
		t.Fatalf("steps %+v, want attempt 1", plan.Steps)
	}
}

// TestUnknownContainerThatNeverRan: the runtime was killed between starting it and
// noting that it did. It is stopped and made anew under its number.
func TestUnknownContainerThatNeverRan(t *testing.T) {
	pod := podWith(corev1.Container{Name: "c"})
	defaults(pod)
	w := newWorld(pod)
	w.hold[StartContainer] = true
	w.settle()
	clear(w.f.InFlight)
	lost := Container{ID: "c-0", Name: "c", SandboxID: "sandbox-0", State: Unknown}
	w.f.Containers = []Container{lost}
	plan := Decide(w.f, w.now)
	if len(plan.Steps) != 1 || plan.Steps[0].Kind != StopContainer {
		t.Fatalf("steps %+v, want its stop", plan.Steps)
	}
	w.note(plan)
	lost.State, lost.Interrupted, lost.ExitCode, lost.Finished = Exited, true, 255, w.now
	w.f.Containers = []Container{lost}
	clear(w.hold)
	w.settle()
	if c := w.newest("c"); c.State != Running || c.Attempt != 0 {
		t.Errorf("container %+v, want attempt 0", c)
	}
}

// TestForeignConditionsStay: what others wrote into the status is never lost.
func TestForeignConditionsStay(t *testing.T) {
	pod := podWith(corev1.Container{Name: "c"})
	defaults(pod)
	pod.Status.Conditions = []corev1.PodCondition{{Type: "example.com/mine", Status: corev1.ConditionTrue}, {Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	pod.Status.NominatedNodeName = "n"
	w := newWorld(pod)
	w.settle()
	s := Decide(w.f, w.now).Status
	if s.Conditions[0].Type != "example.com/mine" || len(s.Conditions) != 6 || s.NominatedNodeName != "n" {
		t.Errorf("status %+v", s)
	}
	for _, c := range s.Conditions[1:] {
		if c.ObservedGeneration != pod.Generation {
			t.Errorf("condition %s observes generation %d", c.Type, c.ObservedGeneration)
		}
	}
}

// TestReportWaitsForBetter: a pod that starts without trouble is reported once.
func TestReportWaitsForBetter(t *testing.T) {
	pod := podWith(corev1.Container{Name: "c"})
	defaults(pod)
	w := newWorld(pod)
	if plan := Decide(w.f, w.now); !plan.Report.Equal(epoch.Add(patience)) {
		t.Errorf("a pod that starts is reported at %v", plan.Report)
	}
	if plan := Decide(w.f, w.now.Add(patience)); !plan.Report.IsZero() {
		t.Errorf("a pod that takes long is reported at %v", plan.Report)
	}
	w.f.Crowded = true
	if plan := Decide(w.f, w.now.Add(patience)); !plan.Report.Equal(epoch.Add(crowdPatience)) || !plan.Wake.Equal(plan.Report) {
		t.Errorf("a pod in a crowd is reported at %v, and looked at again at %v", plan.Report, plan.Wake)
	}
	w.f.Written = epoch.Add(time.Second)
	if plan := Decide(w.f, w.now.Add(patience)); !plan.Report.Equal(w.f.Written.Add(crowdPatience)) {
		t.Errorf("a pod in a crowd is reported again at %v", plan.Report)
	}
	if plan := Decide(w.f, w.f.Written.Add(crowdPatience)); !plan.Report.IsZero() {
		t.Errorf("a pod that takes long in a crowd is reported at %v", plan.Report)
	}
	w.f.Failures["SetUpVolumes"] = Failure{At: w.now, Count: 1, Reason: "FailedMount"}
	if plan := Decide(w.f, w.now); !plan.Report.IsZero() {
		t.Errorf("a pod in trouble is reported at %v", plan.Report)
	}
}
