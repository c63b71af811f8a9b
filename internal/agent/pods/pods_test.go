package pods

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func podNamed(name string, containers ...corev1.Container) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{Containers: containers}}
}

func command(name string, words ...string) corev1.Container {
	return corev1.Container{Name: name, Command: words}
}

// inBubble runs a test on virtual time, with a running node.
func inBubble(t *testing.T, f func(t *testing.T, n *node)) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.start()
		f(t, n)
		n.stop()
	})
}

// after lets time pass until d from now, and everything come to rest.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (n *node) want(name, state string) {
	n.t.Helper()
	if got := n.state(name); got != state {
		n.t.Errorf("pod %s is %q, want %q", name, got, state)
	}
}

func TestPodRunsAndIsReportedOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		after(time.Second)
		began := time.Now()
		n.create(podNamed("p", command("c", "run")))
		for n.state("p") != "Running c:running*" && time.Since(began) < time.Second {
			after(time.Millisecond)
		}
		if took, floor := time.Since(began), 140*time.Millisecond; took > floor+10*time.Millisecond {
			t.Errorf("Running was reported after %v; the runtime took %v", took, floor)
		}
		after(5 * time.Second)
		writes, events := n.log()
		if diff := cmp.Diff([]string{"Running c:running*"}, writes); diff != "" {
			t.Errorf("status writes (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{
			`Normal Pulled spec.containers{c}: Container image "image:latest" already present on machine and can be accessed by the pod`,
			"Normal Created spec.containers{c}: Container created",
			"Normal Started spec.containers{c}: Container started",
		}, events); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		pod := n.get("p")
		if pod.Status.PodIP == "" || pod.Status.HostIP != "192.0.2.1" || pod.Status.StartTime == nil {
			t.Errorf("addresses and start: %+v", pod.Status)
		}
	})
}

// TestCrowdIsReportedOnce: of many pods that start at once, none is reported while it waits for its
// turn, but perhaps for the last few, which are no crowd.
func TestCrowdIsReportedOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		after(time.Second)
		const count = 200
		for i := range count {
			n.create(podNamed(fmt.Sprintf("p-%d", i), command("c", "run")))
		}
		after(20 * time.Second)
		writes, _ := n.log()
		running := 0
		for _, w := range writes {
			if w == "Running c:running*" {
				running++
			}
		}
		if running != count || len(writes) > count+many {
			t.Errorf("%d pods: %d reports of running ones, %d of others", count, running, len(writes)-running)
		}
	})
}

func TestDeletedPodEndsGracefully(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		pod := n.create(podNamed("p", command("c", "deaf")))
		after(2 * time.Second)
		logs := n.manager.podLogDir("default", "p", pod.UID)
		n.remove("p", 7)
		after(6 * time.Second)
		n.want("p", "Running c:running*")
		after(2 * time.Second)
		n.want("p", "gone")
		want := []string{
			"RunPodSandbox p 0", "CreateContainer c 0", "StartContainer c 0", "StopContainer c 0 grace 7",
			"StopPodSandbox sandbox-1", "RemovePodSandbox sandbox-1",
		}
		if diff := cmp.Diff(want, n.runtime.Calls()); diff != "" {
			t.Errorf("calls (-want +got):\n%s", diff)
		}
		writes, _ := n.log()
		if last := writes[len(writes)-1]; last != "Failed c:Error(137)" {
			t.Errorf("last status %q", last)
		}
		if _, err := os.Stat(logs); !os.IsNotExist(err) {
			t.Errorf("the logs are still there: %v", err)
		}
		if pods := n.manager.Pods(); len(pods) > 0 {
			t.Errorf("the node still has %d pods", len(pods))
		}
	})
}

// TestServerThatKnowsNothingYet: one that has just started may answer that it does not find a pod
// which it has. Such a pod is neither ended nor left behind.
func TestServerThatKnowsNothingYet(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		missing := apierrors.NewNotFound(corev1.Resource("pods"), "p")
		n.mu.Lock()
		n.refuse, n.refuseDelete = missing, missing
		n.mu.Unlock()
		n.create(podNamed("p", command("c", "run")))
		after(5 * time.Second)
		if calls := n.runtime.Calls(); len(calls) != 3 {
			t.Errorf("calls %v", calls)
		}
		n.mu.Lock()
		n.refuse = nil
		n.mu.Unlock()
		after(5 * time.Second)
		n.want("p", "Running c:running*")
		now := metav1.Now()
		n.change("p", func(pod *corev1.Pod) { pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = &now, new(int64(1)) })
		after(5 * time.Second)
		n.want("p", "Succeeded c:Completed(0)")
		n.mu.Lock()
		n.refuseDelete = nil
		n.mu.Unlock()
		after(15 * time.Second)
		n.want("p", "gone")
	})
}

// TestRestartedAgentTouchesNothing: an agent that comes back finds its pods and
// makes no call that changes anything, nor any status write.
func TestRestartedAgentTouchesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		c := command("c", "run")
		c.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"ok"}}}, PeriodSeconds: 5, FailureThreshold: 3}
		n.create(podNamed("p", c))
		n.create(podNamed("done", command("c", "exit", "0")))
		n.change("done", func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever })
		n.create(podNamed("crash", command("c", "exit", "1")))
		after(3 * time.Second)
		n.want("p", "Running c:running*")
		n.want("crash", "Running c:CrashLoopBackOff#1")
		calls := n.runtime.Calls()
		writes, _ := n.log()
		for range 5 {
			n.restart()
			after(time.Second)
		}
		if diff := cmp.Diff(calls, n.runtime.Calls()); diff != "" {
			t.Errorf("calls of restarted agents (-before +after):\n%s", diff)
		}
		if now, _ := n.log(); len(now) != len(writes) {
			t.Errorf("status writes of restarted agents: %v", now[len(writes):])
		}
		n.want("p", "Running c:running*")
		after(10 * time.Second)
		n.want("crash", "Running c:CrashLoopBackOff#2")
	})
}

func TestCrashLoopKeepsItsPace(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		n.create(podNamed("p", command("c", "exit", "1", "1s")))
		var starts []time.Duration
		began, seen := time.Now(), 0
		for time.Since(began) < 3*time.Minute {
			after(time.Second)
			count := 0
			for _, call := range n.runtime.Calls() {
				if strings.HasPrefix(call, "StartContainer") {
					count++
				}
			}
			if count != seen {
				seen = count
				starts = append(starts, time.Since(began).Round(time.Second))
			}
			if time.Since(began).Round(time.Second) == 20*time.Second {
				n.restart()
			}
		}
		// 1 s of life each, then at once, 10 s, 20 s, 40 s, 80 s; exits are seen within a second.
		want := []time.Duration{1 * time.Second, 2 * time.Second, 13 * time.Second, 34 * time.Second, 75 * time.Second, 156 * time.Second}
		for i := range want {
			if i >= len(starts) || (starts[i]-want[i]).Abs() > 5*time.Second {
				t.Fatalf("started at %v, want about %v", starts, want)
			}
		}
	})
}

func TestRuntimeAwayChangesNoStatus(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		n.create(podNamed("old", command("c", "run")))
		after(2 * time.Second)
		n.runtime.SetDown(true)
		n.images.SetDown(true)
		n.create(podNamed("new", command("c", "run")))
		after(time.Minute)
		n.want("old", "Running c:running*")
		n.want("new", "Pending c:ContainerCreating")
		_, events := n.log()
		for _, e := range events {
			if strings.HasPrefix(e, "Warning") {
				t.Errorf("event %q", e)
			}
		}
		n.runtime.SetDown(false)
		n.images.SetDown(false)
		after(3 * time.Second)
		n.want("new", "Running c:running*")
		n.want("old", "Running c:running*")
	})
}

// TestRuntimeGoesAsTheAgentComes: an agent that has yet to look at what runs says nothing of it, and
// what has started stays started.
func TestRuntimeGoesAsTheAgentComes(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		c := command("c", "run")
		c.StartupProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"up"}}}, PeriodSeconds: 1}
		c.ReadinessProbe = c.StartupProbe
		n.create(podNamed("p", c))
		after(5 * time.Second)
		n.want("p", "Running c:running*")
		n.stop()
		n.api.PrependReactor("list", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			n.runtime.SetDown(true) // it has told of the pod, and no more
			return false, nil, nil
		})
		writes, _ := n.log()
		n.start()
		after(10 * time.Second)
		n.want("p", "Running c:running*")
		n.runtime.SetDown(false)
		after(10 * time.Second)
		n.want("p", "Running c:running*")
		if now, _ := n.log(); len(now) != len(writes) {
			t.Errorf("statuses written: %q", now[len(writes):])
		}
	})
}

func TestOrphansGoOnlyAfterAFullList(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		n.create(podNamed("p", command("c", "run")))
		after(2 * time.Second)
		n.stop()
		if err := n.api.Tracker().Delete(podsResource, "default", "p"); err != nil {
			t.Fatal(err)
		}
		n.mu.Lock()
		n.refuseList = apierrors.NewInternalError(os.ErrDeadlineExceeded)
		n.mu.Unlock()
		before := len(n.runtime.Calls())
		n.start()
		after(time.Minute)
		if calls := n.runtime.Calls(); len(calls) != before {
			t.Fatalf("calls without a list: %v", calls[before:])
		}
		n.mu.Lock()
		n.refuseList = nil
		n.mu.Unlock()
		after(5 * time.Second)
		want := []string{"StopContainer c 0 grace 30", "StopPodSandbox sandbox-1", "RemovePodSandbox sandbox-1"}
		if diff := cmp.Diff(want, n.runtime.Calls()[before:]); diff != "" {
			t.Errorf("calls (-want +got):\n%s", diff)
		}
	})
}

// TestForeignSandboxesAreLeftAlone: what another client of the runtime runs is not ours.
func TestForeignSandboxesAreLeftAlone(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		_, err := n.runtime.RunPodSandbox(t.Context(), &runtimeapi.PodSandboxConfig{
			Metadata: &runtimeapi.PodSandboxMetadata{Name: "theirs", Uid: "x"}, Labels: map[string]string{"io.kubernetes.pod.uid": "x"},
		}, "")
		if err != nil {
			t.Fatal(err)
		}
		n.restart()
		after(time.Minute)
		if calls := n.runtime.Calls(); len(calls) != 1 {
			t.Errorf("calls %v", calls)
		}
	})
}

// TestAgentDiesInTheMiddleOfAStart at every moment of it: the pod runs once in the end.
func TestAgentDiesInTheMiddleOfAStart(t *testing.T) {
	for at := 5 * time.Millisecond; at < 160*time.Millisecond; at += 10 * time.Millisecond {
		inBubble(t, func(t *testing.T, n *node) {
			after(time.Second)
			n.create(podNamed("p", command("a", "run"), command("b", "run")))
			after(at)
			n.restart()
			after(5 * time.Second)
			if got := n.state("p"); got != "Running a:running* b:running*" {
				t.Errorf("killed after %v: %s", at, got)
			}
			starts := 0
			for _, call := range n.runtime.Calls() {
				if strings.HasPrefix(call, "StartContainer") {
					starts++
				}
			}
			// A start that was cut short is done again; one that took effect is not.
			if starts > 3 {
				t.Errorf("killed after %v: %v", at, n.runtime.Calls())
			}
		})
	}
}

func TestStatusConflictKeepsWhatOthersWrote(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		c := command("c", "run")
		c.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"ok"}}}, PeriodSeconds: 1}
		pod := podNamed("p", c)
		pod.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/gate"}}
		n.create(pod)
		after(2 * time.Second)
		ready := func() corev1.ConditionStatus {
			for _, c := range n.get("p").Status.Conditions {
				if c.Type == corev1.PodReady {
					return c.Status
				}
			}
			return ""
		}
		if got := ready(); got != corev1.ConditionFalse {
			t.Errorf("ready is %s before its gate opens", got)
		}
		n.change("p", func(p *corev1.Pod) {
			p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: "example.com/gate", Status: corev1.ConditionTrue})
		})
		after(time.Second)
		if got := ready(); got != corev1.ConditionTrue {
			t.Errorf("ready is %s after its gate has opened", got)
		}
	})
}

func TestStatusIsNotLostWhileTheServerIsAway(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		n.mu.Lock()
		n.refuse = apierrors.NewServiceUnavailable("restarting")
		n.mu.Unlock()
		n.create(podNamed("p", command("c", "run")))
		after(30 * time.Second)
		n.want("p", "Pending")
		n.mu.Lock()
		n.refuse = nil
		n.mu.Unlock()
		after(5 * time.Second)
		n.want("p", "Running c:running*")
	})
}

func TestImageThatCannotBeHad(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		c := command("c", "run")
		c.Image = "remote:1"
		n.create(podNamed("p", c))
		after(time.Second)
		n.want("p", "Pending c:ErrImagePull")
		after(6 * time.Second)
		n.want("p", "Pending c:ImagePullBackOff")
		if m := n.get("p").Status.ContainerStatuses[0].State.Waiting.Message; strings.Count(m, "ErrImagePull") != 1 {
			t.Errorf("the reason is not said once: %q", m)
		}
		n.images.Publish("remote:1")
		after(10 * time.Second)
		n.want("p", "Running c:running*")
		_, events := n.log()
		for _, want := range []string{"Normal Pulling", "Warning Failed", "Normal BackOff", "Normal Pulled"} {
			if !slices.ContainsFunc(events, func(e string) bool { return strings.HasPrefix(e, want) }) {
				t.Errorf("no event %q in %q", want, events)
			}
		}
	})
}

func TestProbesDecideReadinessAndRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		healthy, ready := true, false
		n.runtime.Run = func(_ string, cmd []string) (string, int) {
			if cmd[0] == "ready" && !ready || cmd[0] == "live" && !healthy {
				return "no", 1
			}
			return "", 0
		}
		n.start()
		exec := func(cmd string) corev1.ProbeHandler {
			return corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{cmd}}}
		}
		c := command("c", "run")
		c.ReadinessProbe = &corev1.Probe{ProbeHandler: exec("ready"), PeriodSeconds: 2}
		c.LivenessProbe = &corev1.Probe{ProbeHandler: exec("live"), PeriodSeconds: 1, FailureThreshold: 3, TerminationGracePeriodSeconds: new(int64(4))}
		n.create(podNamed("p", c))
		after(5 * time.Second)
		n.want("p", "Running c:running")
		ready = true
		after(3 * time.Second)
		n.want("p", "Running c:running*")
		healthy = false
		after(2 * time.Second)
		n.want("p", "Running c:running*")
		after(2 * time.Second)
		healthy = true
		after(2 * time.Second)
		n.want("p", "Running c:running#1*")
		if calls := n.runtime.Calls(); !slices.Contains(calls, "StopContainer c 0 grace 4") {
			t.Errorf("the probe's own grace period was not used: %v", calls)
		}
		n.stop()
	})
}

func TestHooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		var ran []string
		n.runtime.Run = func(_ string, cmd []string) (string, int) {
			ran = append(ran, cmd[0])
			return "", 0
		}
		n.start()
		c := command("c", "run")
		c.Lifecycle = &corev1.Lifecycle{
			PostStart: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 5}},
			PreStop:   &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"bye"}}},
		}
		n.create(podNamed("p", c, command("d", "run")))
		after(3 * time.Second)
		n.want("p", "Pending c:ContainerCreating d:ContainerCreating")
		after(3 * time.Second)
		n.want("p", "Running c:running* d:running*")
		n.remove("p", 10)
		after(time.Second)
		n.want("p", "gone")
		if len(ran) != 1 || ran[0] != "bye" {
			t.Errorf("hooks run: %v", ran)
		}
		n.stop()
	})
}

// TestRuntimeDiesUnderAStart: a container that runs nevertheless is not started twice, its
// postStart hook is not forgotten, and a hook that the runtime was killed under is not its fault.
func TestRuntimeDiesUnderAStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		hooks := 0
		n.runtime.Run = func(string, []string) (string, int) { hooks++; return "", 0 }
		n.runtime.LoseAnswer()
		n.runtime.FailNext("ContainerStatus", status.Error(codes.Unavailable, "connection refused"))
		n.runtime.FailNext("ContainerStatus", status.Error(codes.Unknown, "server is not initialized yet"))
		n.runtime.FailNext("ExecSync", status.Error(codes.Unavailable, "error reading from server: EOF"))
		n.runtime.FailNext("ExecSync", status.Error(codes.Unknown, "server is not initialized yet"))
		n.start()
		c := command("c", "run")
		c.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"hello"}}}}
		n.create(podNamed("p", c))
		after(5 * time.Second)
		n.want("p", "Running c:running*")
		if want := []string{"RunPodSandbox p 0", "CreateContainer c 0", "StartContainer c 0"}; hooks != 1 || !slices.Equal(n.runtime.Calls(), want) {
			t.Errorf("%d hooks, calls %v", hooks, n.runtime.Calls())
		}
		n.stop()
	})
}

func TestHostPortConflictFailsThePod(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		c := command("c", "run")
		c.Ports = []corev1.ContainerPort{{HostPort: 80, ContainerPort: 80}}
		n.create(podNamed("first", c))
		after(time.Second)
		n.create(podNamed("second", c))
		after(2 * time.Second)
		n.want("first", "Running c:running*")
		n.want("second", "Failed/NodePorts")
		n.remove("second", 30)
		after(2 * time.Second)
		n.want("second", "gone")
	})
}

func TestSandboxLeftByACrashIsUsed(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		n.runtime.FailNext("PodSandboxStatus", status.Error(codes.Unavailable, "killed")) // it was made, and the answer is lost
		n.create(podNamed("p", command("c", "run")))
		after(3 * time.Second)
		n.want("p", "Running c:running*")
		if calls := n.runtime.Calls(); slices.Contains(calls, "RunPodSandbox p 1") {
			t.Errorf("a second sandbox was made: %v", calls)
		}
	})
}

func TestRebootKeepsCounts(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		n.create(podNamed("p", command("c", "run")))
		after(2 * time.Second)
		n.stop()
		n.runtime.KillSandboxes()
		n.start()
		after(2 * time.Second)
		n.want("p", "Running c:running#1*")
		if calls := n.runtime.Calls(); !slices.Contains(calls, "RunPodSandbox p 1") {
			t.Errorf("calls %v", calls)
		}
	})
}

func TestNetworkThatIsNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		ready := os.ErrNotExist
		n.options.NetworkReady = func() error { return ready }
		n.start()
		n.create(podNamed("bridged", command("c", "run")))
		host := podNamed("host", command("c", "run"))
		host.Spec.HostNetwork = true
		n.create(host)
		after(3 * time.Second)
		n.want("host", "Running c:running*")
		n.want("bridged", "Pending c:ContainerCreating")
		ready = nil
		after(time.Second)
		n.want("bridged", "Running c:running*")
		n.stop()
	})
}

func TestLookups(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		pod := n.create(podNamed("p", command("c", "exit", "1", "1s")))
		after(4 * time.Second)
		n.want("p", "Running c:CrashLoopBackOff#1")
		dir := filepath.Join(n.manager.podLogDir("default", "p", pod.UID), "c")
		path, id, err := n.manager.LogFile("default", "p", "", "c", false)
		if err != nil || path != filepath.Join(dir, "1.log") || id != "container-3" {
			t.Errorf("log %s of %s, %v", path, id, err)
		}
		if _, err := n.manager.Container("default", "p", pod.UID, "c"); err != nil {
			t.Error(err)
		}
		if id, err := n.manager.Sandbox("default", "p", ""); err != nil || id != "sandbox-1" {
			t.Errorf("sandbox %s, %v", id, err)
		}
		after(10 * time.Second) // it runs again now
		if path, _, err := n.manager.LogFile("default", "p", "", "c", true); err != nil || path != filepath.Join(dir, "1.log") {
			t.Errorf("previous log %s, %v", path, err)
		}
		for _, bad := range []func() error{
			func() error { _, err := n.manager.Container("default", "p", "another", "c"); return err },
			func() error { _, err := n.manager.Container("default", "p", "", "x"); return err },
			func() error { _, err := n.manager.Sandbox("default", "q", ""); return err },
		} {
			if err := bad(); err == nil {
				t.Error("something was found that is not there")
			}
		}
	})
}

func TestContainerConfig(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		c := command("c", "run", "$(WHO)", "$$(WHO)")
		c.Args = []string{"$(UNKNOWN)"}
		c.Env = []corev1.EnvVar{{Name: "WHO", Value: "me"}}
		c.WorkingDir, c.TTY, c.TerminationMessagePath = "/w", true, "/dev/termination-log"
		c.SecurityContext = &corev1.SecurityContext{
			RunAsUser: new(int64(7)), AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
			Capabilities:   &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN"}, Drop: []corev1.Capability{"ALL"}},
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		}
		pod := podNamed("p", c)
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: new(int64(1)), RunAsGroup: new(int64(2)), FSGroup: new(int64(3)), SupplementalGroups: []int64{4}}
		pod.Spec.ShareProcessNamespace = new(true)
		n.create(pod)
		after(2 * time.Second)
		got := n.runtime.Configs()["c/0"]
		if diff := cmp.Diff([]string{"run", "me", "$(WHO)", "$(UNKNOWN)"}, append(got.Command, got.Args...)); diff != "" {
			t.Errorf("command (-want +got):\n%s", diff)
		}
		sc := got.Linux.SecurityContext
		if sc.RunAsUser.GetValue() != 7 || sc.RunAsGroup.GetValue() != 2 || !slices.Equal(sc.SupplementalGroups, []int64{3, 4}) ||
			!sc.NoNewPrivs || !sc.ReadonlyRootfs || sc.Capabilities.DropCapabilities[0] != "ALL" ||
			sc.Seccomp.ProfileType != runtimeapi.SecurityProfile_RuntimeDefault || sc.NamespaceOptions.Pid != runtimeapi.NamespaceMode_POD || len(sc.MaskedPaths) == 0 {
			t.Errorf("security context %v", sc)
		}
		mounts := map[string]string{}
		for _, m := range got.Mounts {
			mounts[m.ContainerPath] = m.HostPath
		}
		hosts, err := os.ReadFile(mounts["/etc/hosts"])
		if err != nil || !strings.Contains(string(hosts), "\tp\n") {
			t.Errorf("hosts file %q, %v", hosts, err)
		}
		if mounts["/dev/termination-log"] == "" || got.WorkingDir != "/w" || !got.Tty || got.LogPath != "c/0.log" {
			t.Errorf("configuration %v", got)
		}
	})
}

func TestRunAsNonRootIsKept(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		c := command("c", "run")
		c.SecurityContext = &corev1.SecurityContext{RunAsNonRoot: new(true)}
		n.create(podNamed("p", c))
		after(2 * time.Second)
		n.want("p", "Pending c:CreateContainerConfigError")
		if calls := n.runtime.Calls(); slices.Contains(calls, "CreateContainer c 0") {
			t.Errorf("calls %v", calls)
		}
	})
}

// TestMissingConfigMapIsUsedAtOnce when it appears, not at the next try.
func TestMissingConfigMapIsUsedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		source := &oneMap{}
		n.options.Objects = source
		n.start()
		c := command("c", "run")
		c.Env = []corev1.EnvVar{{Name: "K", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: "m"}, Key: "k",
		}}}}
		n.create(podNamed("p", c))
		after(time.Minute)
		n.want("p", "Pending c:CreateContainerConfigError")
		source.appear()
		after(100 * time.Millisecond)
		n.want("p", "Running c:running*")
		n.stop()
	})
}

func TestHostPortsBecomeMappings(t *testing.T) {
	c := corev1.Container{Ports: []corev1.ContainerPort{{HostPort: 8080, ContainerPort: 80, HostIP: "127.0.0.1"}, {ContainerPort: 81}, {HostPort: 53, ContainerPort: 53, Protocol: corev1.ProtocolUDP}}}
	pod := podNamed("p", c)
	got := portMappings(pod)
	if len(got) != 2 || got[0].HostIp != "127.0.0.1" || got[1].Protocol != runtimeapi.Protocol_UDP {
		t.Errorf("mappings %v", got)
	}
	pod.Spec.HostNetwork = true
	if got := portMappings(pod); got != nil {
		t.Errorf("mappings of a host-network pod: %v", got)
	}
}

// A pod that wants users of its own must never run with the host's.
func TestUserNamespacesAreRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		pod := podNamed("p", command("c", "run"))
		pod.Spec.HostUsers = new(false)
		n.create(pod)
		after(3 * time.Second)
		n.want("p", "Pending c:ContainerCreating")
		if _, events := n.log(); !slices.ContainsFunc(events, func(e string) bool { return strings.Contains(e, "hostUsers") }) {
			t.Errorf("nothing says why: %v", events)
		}
	})
}
