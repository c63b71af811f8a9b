package pods

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/everynode/everynode/internal/agent/volumes"
	"github.com/everynode/everynode/internal/decide/podlife"
)

func pressure(grace int64) podlife.Eviction {
	return podlife.Eviction{
		Verdict: podlife.Verdict{Reason: "Evicted", Message: "The node was low on resource: memory. "},
		Grace:   ptr.To(grace), Disruption: "The node was low on resource: memory. ",
	}
}

func TestEvict(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		pod := n.create(podNamed("p", command("c", "deaf")))
		after(2 * time.Second)
		ended := n.manager.Evict(pod.UID, pressure(5))
		after(4 * time.Second)
		n.want("p", "Running c:running*")
		select {
		case <-ended:
			t.Error("it is said to have ended")
		default:
		}
		after(2 * time.Second)
		n.want("p", "Failed/Evicted c:Error(137)")
		select {
		case <-ended:
		default:
			t.Error("it is not said to have ended")
		}
		stored := n.get("p")
		if stored.Status.Message != "The node was low on resource: memory. " {
			t.Errorf("message %q", stored.Status.Message)
		}
		if !slices.ContainsFunc(stored.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue && c.Reason == "TerminationByKubelet"
		}) {
			t.Errorf("conditions %+v", stored.Status.Conditions)
		}
		n.restart()
		after(time.Minute)
		n.want("p", "Failed/Evicted c:Error(137)")
		n.remove("p", 30)
		after(time.Second)
		n.want("p", "gone")
		<-n.manager.Evict("unknown", pressure(1))
	})
}

// TestShutdownOfAnEvictedPod: the second eviction may be quicker, but the first says why.
func TestShutdownOfAnEvictedPod(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		pod := n.create(podNamed("p", command("c", "deaf")))
		after(2 * time.Second)
		n.manager.Evict(pod.UID, pressure(20))
		after(time.Second)
		hurry := pressure(3)
		hurry.Reason = "Terminated"
		n.manager.Evict(pod.UID, hurry)
		after(4 * time.Second)
		n.want("p", "Failed/Evicted c:Error(137)")
	})
}

// TestReclaim: where the disk is short, records of the past go at once.
func TestReclaim(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		n.create(podNamed("crash", command("c", "exit", "1")))
		done := podNamed("done", command("d", "exit", "0"))
		done.Spec.RestartPolicy = corev1.RestartPolicyNever
		n.create(done)
		after(3 * time.Second)
		if have := n.runtime.Configs(); have["c/0"] == nil || have["c/1"] == nil || have["d/0"] == nil {
			t.Fatalf("records before: %v", have)
		}
		n.manager.Reclaim(true)
		after(time.Second)
		have := n.runtime.Configs()
		if have["c/0"] != nil || have["d/0"] != nil || have["c/1"] == nil {
			t.Errorf("records after: %v", have)
		}
		n.want("crash", "Running c:CrashLoopBackOff#1")
		n.want("done", "Succeeded d:Completed(0)")
	})
}

func asks(name, cpu string, priority int32) *corev1.Pod {
	c := command("c", "deaf")
	c.Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}
	pod := podNamed(name, c)
	pod.Spec.Priority = &priority
	return pod
}

// TestCriticalPodFindsRoom: it makes others leave, and theirs is its room at once.
func TestCriticalPodFindsRoom(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		n.stop()
		n.options.NodeFacts = func() volumes.Facts {
			return volumes.Facts{NodeName: "n1", HostIPs: []string{"192.0.2.1"}, Allocatable: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}}
		}
		n.start()
		n.create(asks("small", "300m", 0))
		n.create(asks("large", "700m", 0))
		after(2 * time.Second)
		n.create(asks("ordinary", "100m", 0))
		n.create(asks("critical", "500m", podlife.CriticalPriority))
		n.create(asks("second", "200m", 0))
		after(40 * time.Second)
		n.want("small", "Running c:running*")
		n.want("large", "Failed/Preempting c:Error(137)")
		n.want("ordinary", "Failed/OutOfcpu")
		n.want("critical", "Running c:running*")
		n.want("second", "Running c:running*")
		if m := n.get("ordinary").Status.Message; m != "Pod was rejected: Node didn't have enough resource: cpu, requested: 100, used: 1000, capacity: 1000" {
			t.Errorf("message %q", m)
		}
		_, events := n.log()
		if !slices.ContainsFunc(events, func(e string) bool {
			return strings.HasPrefix(e, "Warning Preempting : Preempted in order to admit critical pod")
		}) {
			t.Errorf("events: %q", events)
		}
	})
}

// TestLabelOnItsWay: the Node's newest labels count for a pod that the known ones keep out.
func TestLabelOnItsWay(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		n.stop()
		old := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
		n.options.Node = func() *corev1.Node { return old }
		var fresh *corev1.Node
		n.options.FreshNode = func(context.Context) (*corev1.Node, error) {
			if fresh == nil {
				return nil, errors.New("no answer")
			}
			return fresh, nil
		}
		n.start()
		ssd := func(name string) *corev1.Pod {
			pod := podNamed(name, command("c", "run"))
			pod.Spec.NodeSelector = map[string]string{"disk": "ssd"}
			return pod
		}
		n.create(ssd("a"))
		after(time.Second)
		fresh = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"disk": "ssd"}}}
		n.create(ssd("b"))
		after(time.Second)
		n.want("a", "Failed/NodeAffinity")
		n.want("b", "Running c:running*")
	})
}

// TestRefused: the node itself may take no more pods, while those it has go on.
func TestRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		n.create(podNamed("old", command("c", "run")))
		after(time.Second)
		n.stop()
		n.options.Refuse = func(*corev1.Pod) *podlife.Verdict {
			return &podlife.Verdict{Reason: "NodeShutdown", Message: "Pod was rejected as the node is shutting down."}
		}
		n.start()
		n.create(podNamed("new", command("c", "run")))
		after(time.Second)
		n.want("old", "Running c:running*")
		n.want("new", "Failed/NodeShutdown")
	})
}
