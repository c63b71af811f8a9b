package pods

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// memory is a Keeper that remembers without a disk.
type memory struct {
	mu    sync.Mutex
	pods  map[types.UID]*corev1.Pod
	heard int
}

func (m *memory) Keep(pod *corev1.Pod) {
	m.mu.Lock()
	defer m.mu.Unlock()
	owner := metav1.GetControllerOf(pod)
	if owner == nil || owner.Kind != "DaemonSet" || pod.DeletionTimestamp != nil || ended(pod) {
		delete(m.pods, pod.UID)
		return
	}
	kept := pod.DeepCopy()
	kept.ResourceVersion, kept.Status = "1", corev1.PodStatus{Phase: corev1.PodPending}
	m.pods[pod.UID] = kept
}

func (m *memory) Drop(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.pods, uid)
}

func (m *memory) Only(has func(types.UID) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for uid := range m.pods {
		if !has(uid) {
			delete(m.pods, uid)
		}
	}
}

func (m *memory) Recall(context.Context) (list []*corev1.Pod) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, pod := range m.pods {
		list = append(list, pod.DeepCopy())
	}
	return list
}

func (m *memory) Heard() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heard++
}

func (m *memory) has(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, pod := range m.pods {
		if pod.Name == name {
			return true
		}
	}
	return false
}

// daemonPod is a DaemonSet's.
func daemonPod(name string, words ...string) *corev1.Pod {
	pod := podNamed(name, command("c", words...))
	pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "DaemonSet", Name: "d", UID: "d", Controller: ptr.To(true)}}
	return pod
}

// withRecord runs a test on a node that remembers.
func withRecord(t *testing.T, f func(t *testing.T, n *node, m *memory)) {
	synctest.Test(t, func(t *testing.T) {
		n, m := newNode(t), &memory{pods: map[types.UID]*corev1.Pod{}}
		n.options.Offline = m
		n.start()
		f(t, n, m)
		n.stop()
	})
}

// reboot ends all that runs, and starts the agent with no server in sight.
func (n *node) reboot() {
	n.stop()
	n.serverAway(true)
	n.runtime.Reboot()
	n.start()
}

// TestDaemonPodsRunWithNoServer after a reboot, and no others do; what the server says when it is
// back holds.
func TestDaemonPodsRunWithNoServer(t *testing.T) {
	withRecord(t, func(t *testing.T, n *node, m *memory) {
		n.create(daemonPod("stays", "run"))
		n.create(daemonPod("leaves", "run"))
		n.create(daemonPod("rolls", "run"))
		n.create(podNamed("bare", command("c", "run")))
		after(3 * time.Second)
		n.reboot()
		after(3 * time.Second)
		var running []string
		for _, pod := range n.manager.Pods() {
			running = append(running, pod.Name+" "+brief(pod))
		}
		if diff := cmp.Diff([]string{"leaves Running c:running#1*", "rolls Running c:running#1*", "stays Running c:running#1*"}, running); diff != "" {
			t.Fatalf("with no server (-want +got):\n%s", diff)
		}
		before := len(n.runtime.Calls())

		n.mu.Lock()
		err := n.api.Tracker().Delete(podsResource, "default", "leaves")
		n.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		n.remove("rolls", 5)
		n.serverAway(false)
		after(5 * time.Second)
		n.want("stays", "Running c:running#1*")
		n.want("rolls", "gone")
		n.want("bare", "Running c:running#1*")
		for _, pod := range n.manager.Pods() {
			if pod.Name == "leaves" || pod.Name == "rolls" {
				t.Errorf("pod %s is still here: %s", pod.Name, brief(pod))
			}
		}
		stops := 0
		for _, call := range n.runtime.Calls()[before:] {
			if strings.HasPrefix(call, "StopContainer") {
				stops++
			}
		}
		if stops != 2 {
			t.Errorf("%d containers were stopped: %v", stops, n.runtime.Calls()[before:])
		}
		if !m.has("stays") || m.has("leaves") || m.has("rolls") || m.has("bare") || m.heard == 0 {
			t.Errorf("remembered in the end: %v, heard %d times", m.pods, m.heard)
		}
	})
}

// TestAgentRestartsWithNoServer: what runs is taken over, and watched over.
func TestAgentRestartsWithNoServer(t *testing.T) {
	withRecord(t, func(t *testing.T, n *node, _ *memory) {
		n.create(daemonPod("p", "run"))
		after(3 * time.Second)
		calls := n.runtime.Calls()
		started := n.get("p").Status.StartTime
		for range 3 {
			n.stop()
			n.serverAway(true)
			n.start()
			after(10 * time.Second)
		}
		if pods := n.manager.Pods(); len(pods) != 1 || brief(pods[0]) != "Running c:running*" {
			t.Errorf("with no server: %v", pods)
		}
		n.serverAway(false)
		after(5 * time.Second)
		n.want("p", "Running c:running*")
		if got := n.get("p").Status.StartTime; !got.Equal(started) {
			t.Errorf("started at %v, and now at %v", started, got)
		}
		if diff := cmp.Diff(calls, n.runtime.Calls()); diff != "" {
			t.Errorf("the pod was touched (-before +after):\n%s", diff)
		}
	})
}

// TestRefusedNodeRunsNothingFromMemory: a server that answers has the say, also if it says no.
func TestRefusedNodeRunsNothingFromMemory(t *testing.T) {
	withRecord(t, func(t *testing.T, n *node, _ *memory) {
		n.create(daemonPod("p", "run"))
		after(3 * time.Second)
		n.stop()
		n.runtime.Reboot()
		n.mu.Lock()
		n.refuseList = apierrors.NewForbidden(corev1.Resource("pods"), "", nil)
		n.mu.Unlock()
		before := len(n.runtime.Calls())
		n.start()
		after(time.Minute)
		if calls := n.runtime.Calls()[before:]; len(calls) > 0 {
			t.Errorf("calls %v", calls)
		}
	})
}

// TestEndedPodIsNotRemembered, even while the server that was told has not said so yet.
func TestEndedPodIsNotRemembered(t *testing.T) {
	withRecord(t, func(t *testing.T, n *node, m *memory) {
		pod := daemonPod("p", "exit", "0", "5s")
		pod.Spec.RestartPolicy = corev1.RestartPolicyNever
		n.create(pod)
		after(2 * time.Second)
		if !m.has("p") {
			t.Error("a pod that runs is not remembered")
		}
		n.mu.Lock()
		n.refuse = apierrors.NewServiceUnavailable("away")
		n.mu.Unlock()
		after(10 * time.Second)
		if m.has("p") {
			t.Error("a pod that has ended is remembered")
		}
	})
}
