package pods

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/everynode/everynode/internal/agent/volumes"

	"github.com/everynode/everynode/internal/decide/podlife"
)

func asking(c corev1.Container, cpu, memory string) corev1.Container {
	c.Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(memory)}
	return c
}

// resize asks for other resources of a pod's only container.
func (n *node) resize(name, cpu, memory string) {
	n.t.Helper()
	n.change(name, func(pod *corev1.Pod) {
		pod.Spec.Containers[0] = asking(pod.Spec.Containers[0], cpu, memory)
		pod.Generation++
	})
}

// shows are a pod's resources as its status has them: granted and in use, and how a change goes.
func (n *node) shows(name string) string {
	s := n.get(name).Status
	c := s.ContainerStatuses[0]
	text := "granted " + c.AllocatedResources.Cpu().String() + ", in use " + c.Resources.Requests.Cpu().String() + "/" + c.Resources.Limits.Memory().String()
	for _, cond := range s.Conditions {
		if cond.Type == corev1.PodResizePending || cond.Type == corev1.PodResizeInProgress {
			text += ", " + string(cond.Type) + " " + cond.Reason
		}
	}
	return text
}

func (n *node) wantShows(name, want string) {
	n.t.Helper()
	if got := n.shows(name); got != want {
		n.t.Errorf("%s shows %q, want %q", name, got, want)
	}
}

func updates(calls []string) []string {
	return slices.DeleteFunc(calls, func(c string) bool { return !strings.HasPrefix(c, "Update") })
}

func TestResourcesChangeInPlace(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		n.create(podNamed("p", asking(command("c", "run"), "100m", "64Mi")))
		after(2 * time.Second)
		n.wantShows("p", "granted 100m, in use 100m/64Mi")
		n.resize("p", "200m", "128Mi")
		after(2 * time.Second)
		n.want("p", "Running c:running*")
		n.wantShows("p", "granted 200m, in use 200m/128Mi")
		if got := updates(n.runtime.Calls()); !slices.Equal(got, []string{"UpdateContainerResources c 0 cpu 204 memory 134217728"}) {
			t.Errorf("the runtime was told %v", got)
		}
		if pod := n.get("p"); pod.Status.ObservedGeneration != pod.Generation {
			t.Errorf("generation %d observed, want %d", pod.Status.ObservedGeneration, pod.Generation)
		}
	})
}

func TestResourcesThatNeedARestart(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		c := asking(command("c", "run"), "100m", "64Mi") // ends with 0 when it is stopped
		c.ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: corev1.ResourceMemory, RestartPolicy: corev1.RestartContainer}}
		pod := podNamed("p", c)
		pod.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
		n.create(pod)
		after(2 * time.Second)
		n.resize("p", "200m", "64Mi")
		after(2 * time.Second)
		n.want("p", "Running c:running*")
		n.resize("p", "200m", "128Mi")
		after(2 * time.Second)
		n.want("p", "Running c:running#1*")
		n.wantShows("p", "granted 200m, in use 200m/128Mi")
		if got := n.runtime.Configs()["c/1"].Linux.Resources.MemoryLimitInBytes; got != 128<<20 {
			t.Errorf("it was started anew with %d bytes", got)
		}
	})
}

func TestResourcesThatTheNodeLacks(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		facts := n.options.NodeFacts()
		facts.Allocatable = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("1Gi")}
		n.stop()
		n.options.NodeFacts = func() volumes.Facts { return facts }
		n.start()
		for _, name := range []string{"a", "b"} {
			n.create(podNamed(name, asking(command("c", "run"), "400m", "64Mi")))
		}
		after(2 * time.Second)
		n.resize("a", "2", "64Mi")
		after(2 * time.Second)
		n.wantShows("a", "granted 400m, in use 400m/64Mi, PodResizePending Infeasible")
		n.resize("a", "700m", "64Mi")
		after(2 * time.Second)
		n.wantShows("a", "granted 400m, in use 400m/64Mi, PodResizePending Deferred")
		n.restart()
		after(2 * time.Second)
		n.wantShows("a", "granted 400m, in use 400m/64Mi, PodResizePending Deferred")
		n.resize("b", "200m", "64Mi") // what it gives back is enough
		after(2 * time.Second)
		n.wantShows("a", "granted 700m, in use 700m/64Mi")
		n.resize("b", "500m", "64Mi")
		after(2 * time.Second)
		n.wantShows("b", "granted 200m, in use 200m/64Mi, PodResizePending Deferred")
		n.remove("a", 1)
		after(3 * time.Second)
		n.wantShows("b", "granted 500m, in use 500m/64Mi")
	})
}

func TestRestartedAgentFinishesAResize(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		n.create(podNamed("p", asking(command("c", "run"), "100m", "64Mi")))
		after(2 * time.Second)
		for range 5 {
			n.runtime.FailNext("UpdateContainerResources", errors.New("busy"))
		}
		n.resize("p", "200m", "64Mi")
		after(time.Second)
		n.wantShows("p", "granted 200m, in use 100m/64Mi, PodResizeInProgress Error")
		n.restart()
		after(20 * time.Second)
		n.wantShows("p", "granted 200m, in use 200m/64Mi")

		// Back and forth with the agent away: what the container has is not known, so it is set.
		n.stop()
		n.resize("p", "100m", "64Mi")
		n.start()
		after(2 * time.Second)
		n.wantShows("p", "granted 100m, in use 100m/64Mi")
		n.restart()
		after(2 * time.Second)
		n.wantShows("p", "granted 100m, in use 100m/64Mi")
		n.want("p", "Running c:running*")
	})
}

// What was granted and cannot be read is found in the containers: nothing is restarted or changed.
func TestSpoiltAllocation(t *testing.T) {
	for _, text := range []string{"", "\x00\xff", `{"containers":{"c"`, "null", "{}", `{"containers":{"other":{}}}`, `{"containers":{"c":{"limits":{"memory":"lots"}}}}`} {
		inBubble(t, func(t *testing.T, n *node) {
			n.create(podNamed("p", asking(command("c", "run"), "100m", "64Mi")))
			after(2 * time.Second)
			n.resize("p", "200m", "64Mi")
			after(2 * time.Second)
			n.stop()
			file := n.manager.allocationFile(n.get("p").UID)
			if _, err := os.Stat(file); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			n.start()
			after(20 * time.Second)
			n.want("p", "Running c:running*")
			n.wantShows("p", "granted 200m, in use 200m/64Mi")
		})
	}
}

// FuzzAllocation: a file of what was granted is refused, or can be applied to the pod.
func FuzzAllocation(f *testing.F) {
	pod := podNamed("p", asking(command("c", "run"), "100m", "64Mi"))
	f.Add([]byte(`{"containers":{"c":{"limits":{"cpu":"1"},"requests":null}},"pod":{}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if a, err := parseAllocation(text, podlife.AllocationOf(pod)); err == nil {
			podlife.AdmitResize(a.Apply(pod), nil, nil)
		}
	})
}

// A container that failed its liveness probe is started again even if it then ends well.
func TestUnhealthyContainerRestartsOnFailureOnly(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		n.runtime.Run = func(string, []string) (string, int) { return "no", 1 }
		c := command("c", "run") // ends with 0 when it is stopped
		c.LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"live"}}}, PeriodSeconds: 1, FailureThreshold: 1}
		pod := podNamed("p", c)
		pod.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
		n.create(pod)
		after(3 * time.Second)
		if pod := n.get("p"); pod.Status.Phase != corev1.PodRunning || pod.Status.ContainerStatuses[0].RestartCount == 0 {
			t.Errorf("the pod is %s", brief(pod))
		}
	})
}

// Limits of the pod as a whole hold for containers without; a restarted agent changes nothing.
func TestPodLimitsSurviveTheAgent(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		pod := podNamed("p", command("c", "run"))
		pod.Spec.Resources = &corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}}
		n.create(pod)
		after(2 * time.Second)
		if got := n.runtime.Configs()["c/0"].Linux.Resources.MemoryLimitInBytes; got != 64<<20 {
			t.Errorf("the container may use %d bytes", got)
		}
		n.restart()
		after(2 * time.Second)
		if got := updates(n.runtime.Calls()); len(got) != 0 {
			t.Errorf("the runtime was told %v", got)
		}
		n.change("p", func(pod *corev1.Pod) {
			pod.Spec.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("128Mi")}
			pod.Generation++
		})
		after(2 * time.Second)
		if got := updates(n.runtime.Calls()); len(got) != 1 || !strings.HasSuffix(got[0], "memory 134217728") {
			t.Errorf("the runtime was told %v", got)
		}
		if c := n.get("p").Status.ContainerStatuses[0]; c.Resources == nil || c.Resources.Limits != nil {
			t.Errorf("the container shows limits that it did not ask for: %v", c.Resources)
		}
	})
}
