package podlife

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
)

// TestLifeNeverGoesWrong lets random things happen to random pods and checks, at
// every decision, what must hold whatever happens.
func TestLifeNeverGoesWrong(t *testing.T) {
	for range 10 {
		rapid.Check(t, checkLife)
	}
}

func checkLife(t *rapid.T) {
	w := newWorld(drawPod(t))
	counts := map[string]int32{}
	for range rapid.IntRange(1, 25).Draw(t, "events") {
		happen(t, w)
		step(t, w, counts)
	}
	clear(w.hold)
	clear(w.fail)
	for _, s := range sortedSteps(w.f.InFlight) {
		w.perform(s)
	}
	converges(t, w)
	w.command("delete 1")
	converges(t, w)
	w.command("gone")
	for range 5 { // the runtime may have been told to fail until now
		w.advance(time.Minute)
	}
	if !w.done {
		t.Fatalf("a deleted pod is not done:\n%s", w.out.String())
	}
}

func drawPod(t *rapid.T) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}}
	always := corev1.ContainerRestartPolicyAlways
	for i := range rapid.IntRange(0, 2).Draw(t, "inits") {
		c := corev1.Container{Name: fmt.Sprintf("init%d", i)}
		if rapid.Bool().Draw(t, "sidecar") {
			c.RestartPolicy = &always
			if rapid.Bool().Draw(t, "hook") {
				c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{}}
			}
		}
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, c)
	}
	for i := range rapid.IntRange(1, 2).Draw(t, "containers") {
		c := corev1.Container{Name: fmt.Sprintf("c%d", i)}
		if rapid.Bool().Draw(t, "restart to resize") {
			c.ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: corev1.ResourceCPU, RestartPolicy: corev1.RestartContainer}}
		}
		if rapid.Bool().Draw(t, "probe") {
			c.ReadinessProbe = &corev1.Probe{}
		}
		pod.Spec.Containers = append(pod.Spec.Containers, c)
	}
	pod.Spec.RestartPolicy = rapid.SampledFrom([]corev1.RestartPolicy{corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever}).Draw(t, "policy")
	defaults(pod)
	return pod
}

// happen does one thing to the pod, without letting the machine react.
func happen(t *rapid.T, w *world) {
	kinds := []Kind{SetUpVolumes, EnsureImage, RunSandbox, StartContainer, ResizePod, PreStop, StopContainer, StopSandbox, TearDown}
	kind := rapid.SampledFrom(kinds).Draw(t, "kind")
	switch rapid.IntRange(0, 10).Draw(t, "event") {
	case 10:
		pod := w.f.Pod.DeepCopy()
		for i := range pod.Spec.Containers {
			pod.Spec.Containers[i].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: *resource.NewMilliQuantity(int64(rapid.IntRange(1, 3).Draw(t, "cpu")), resource.DecimalSI)}
		}
		w.f.Pod, w.f.Resizing = pod, true
	case 0, 1:
		for _, c := range withInit(w.f.Pod) {
			if obs := w.newest(c.Name); obs != nil && rapid.Bool().Draw(t, "exits") {
				w.exit(obs.ID, int32(rapid.IntRange(0, 1).Draw(t, "code")))
			}
		}
	case 2:
		w.hold[kind] = true
	case 3:
		delete(w.hold, kind)
		for _, s := range sortedSteps(w.f.InFlight) {
			if s.Kind == kind {
				w.perform(s)
			}
		}
	case 4:
		w.fail[kind] = rapid.SampledFrom([]string{"", "CreateContainerError"}).Draw(t, "reason")
	case 5:
		for i := range w.f.Sandboxes {
			w.f.Sandboxes[i].Ready = false
		}
		for _, c := range w.f.Containers {
			w.exit(c.ID, 255)
		}
	case 6:
		w.now = w.now.Add(time.Duration(rapid.IntRange(0, 400).Draw(t, "seconds")) * time.Second)
	case 7:
		for _, s := range sortedSteps(w.f.InFlight) {
			w.perform(s) // the runtime finishes what it was told
		}
		w.restartAgent()
	case 9: // the sandbox's own process is killed
		for i := range w.f.Sandboxes {
			w.f.Sandboxes[i].Ready = false
		}
	case 8:
		if rapid.IntRange(0, 5).Draw(t, "delete") == 0 {
			grace, at := int64(5), metav1.NewTime(w.now.Add(5*time.Second))
			pod := w.f.Pod.DeepCopy()
			pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = &at, &grace
			w.f.Pod = pod
		}
	}
}

func sortedSteps(m map[string]Step) []Step {
	var out []Step
	for _, k := range []Kind{SetUpVolumes, EnsureImage, RunSandbox, StartContainer, ResizePod, PreStop, StopContainer, RemoveContainer, StopSandbox, RemoveSandbox, TearDown, DeletePod} {
		for _, s := range m {
			if s.Kind == k {
				out = append(out, s)
			}
		}
	}
	return out
}

// step is one decision, checked and performed.
func step(t *rapid.T, w *world, counts map[string]int32) {
	plan := Decide(w.f, w.now)
	if diff := cmp.Diff(plan, Decide(w.f, w.now)); diff != "" {
		t.Fatalf("equal facts, different plans:\n%s", diff)
	}
	starts := 0
	for _, s := range plan.Steps {
		if _, doubled := w.f.InFlight[s.Key()]; doubled {
			t.Fatalf("step %s is begun twice", s.Key())
		}
		switch s.Kind {
		case StartContainer:
			starts++
			if plan.Ending {
				t.Fatalf("%s of a pod that ends", s.Key())
			}
			for _, c := range w.f.Containers {
				if c.Name == s.Container && (c.live() || c.Attempt >= s.Attempt && c.SandboxID == s.SandboxID) {
					t.Fatalf("start of %s #%d beside %s #%d (%s)", s.Container, s.Attempt, c.ID, c.Attempt, c.State)
				}
			}
		case RemoveSandbox, RemoveContainer:
			for _, c := range w.f.Containers {
				if c.live() && (c.ID == s.ID || c.SandboxID == s.ID) {
					t.Fatalf("%s of %s while %s runs", s.Kind, s.ID, c.ID)
				}
			}
		case TearDown, DeletePod:
			checkStill(t, w, s)
		}
		if s.Kind == DeletePod {
			if !terminal(plan.Status.Phase) {
				t.Fatalf("final delete with phase %s", plan.Status.Phase)
			}
		}
	}
	checkNetwork(t, w, plan)
	if starts > 1 {
		t.Fatal("two starts at once")
	}
	for _, list := range [][]corev1.ContainerStatus{plan.Status.InitContainerStatuses, plan.Status.ContainerStatuses} {
		for _, c := range list {
			if c.RestartCount < counts[c.Name] {
				t.Fatalf("restart count of %s went from %d to %d", c.Name, counts[c.Name], c.RestartCount)
			}
			counts[c.Name] = c.RestartCount
		}
	}
	if terminal(w.f.Pod.Status.Phase) && plan.Status.Phase != w.f.Pod.Status.Phase {
		t.Fatalf("phase went from %s to %s", w.f.Pod.Status.Phase, plan.Status.Phase)
	}
	w.note(plan)
	w.api = plan.Status
	for _, s := range plan.Steps {
		w.mark(s)
		if w.hold[s.Kind] {
			w.f.InFlight[s.Key()] = s
		} else {
			w.perform(s)
		}
	}
}

// checkStill: nothing of the pod runs, or is about to.
func checkStill(t *rapid.T, w *world, s Step) {
	for _, c := range w.f.Containers {
		if c.live() {
			t.Fatalf("%s while %s runs", s.Kind, c.ID)
		}
	}
	for _, b := range w.f.Sandboxes {
		if b.Ready {
			t.Fatalf("%s while %s is ready", s.Kind, b.ID)
		}
	}
	for _, other := range w.f.InFlight {
		switch other.Kind {
		case RunSandbox, StartContainer, SetUpVolumes:
			t.Fatalf("%s while %s is under way", s.Kind, other.Key())
		}
	}
	if s.Kind == DeletePod && !w.f.TornDown {
		t.Fatal("final delete before the volumes were torn down")
	}
}

// checkNetwork: no new sandbox while containers of an old one are alive.
func checkNetwork(t *rapid.T, w *world, plan Plan) {
	for _, s := range plan.Steps {
		for _, c := range w.f.Containers {
			if s.Kind == RunSandbox && c.live() {
				t.Fatalf("new sandbox while %s runs in an old one", c.ID)
			}
		}
	}
}

// converges: left alone, the machine comes to rest.
func converges(t *rapid.T, w *world) {
	for range 5 {
		w.advance(time.Minute)
	}
	for range 200 {
		plan := Decide(w.f, w.now)
		if len(plan.Steps) == 0 {
			return
		}
		w.note(plan)
		for _, s := range plan.Steps {
			w.mark(s)
			w.perform(s)
		}
	}
	t.Fatalf("the machine never comes to rest:\n%s", w.out.String())
}
