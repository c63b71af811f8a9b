package daemonset

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func TestFirstRollout(t *testing.T) {
	inBubble(t, threeNodes(testDaemonSet()), func(c *cluster) {
		c.rest()
		if got := c.nodesWithPods(); got != "n1 n2 n3" {
			t.Fatalf("pods on %q", got)
		}
		revisions := c.revisions()
		if len(revisions) != 1 || revisions[0].Revision != 1 {
			t.Fatalf("history: %+v", revisions)
		}
		p := c.pods()[0]
		if p.Spec.NodeName == "" || p.Labels["controller-revision-hash"] != revisions[0].Labels["controller-revision-hash"] ||
			!metav1.IsControlledBy(&p, c.daemonSet()) || len(p.Spec.Tolerations) < 6 {
			t.Errorf("a pod: %+v", p)
		}
		c.makeReady()
		c.rest()
		want := appsv1.DaemonSetStatus{
			ObservedGeneration: 1, DesiredNumberScheduled: 3, CurrentNumberScheduled: 3, NumberReady: 3,
			UpdatedNumberScheduled: 3, NumberAvailable: 3,
		}
		if d := cmp.Diff(want, c.daemonSet().Status); d != "" {
			t.Errorf("status (-want +got):\n%s", d)
		}
		if d := cmp.Diff(map[string]int{"SuccessfulCreate": 3}, c.reasons()); d != "" {
			t.Errorf("events (-want +got):\n%s", d)
		}
		if _, _, statuses := c.writer.writes(); statuses > 8 {
			t.Errorf("%d status writes for one rollout", statuses)
		}
	})
}

func TestNodesComeAndGo(t *testing.T) {
	inBubble(t, threeNodes(testDaemonSet()), func(c *cluster) {
		ctx, nodes := context.Background(), c.client.CoreV1().Nodes()
		c.rest()
		if _, err := nodes.Create(ctx, testNode("n4"), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		excluded := testNode("n2")
		excluded.Spec.Taints = []corev1.Taint{{Key: "gpu", Effect: corev1.TaintEffectNoExecute}}
		if _, err := nodes.Update(ctx, excluded, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.rest()
		if got := c.nodesWithPods(); got != "n1 n3 n4" {
			t.Errorf("pods on %q", got)
		}
		if got := c.daemonSet().Status.DesiredNumberScheduled; got != 3 {
			t.Errorf("desired %d", got)
		}
	})
}

// TestRestartChangesNothing: a controller that is killed at rest, and another that starts, write nothing.
func TestRestartChangesNothing(t *testing.T) {
	inBubble(t, threeNodes(testDaemonSet()), func(c *cluster) {
		c.rest()
		c.makeReady()
		c.rest()
		c.writer.writes()
		c.restart()
		c.rest()
		if created, deleted, statuses := c.writer.writes(); len(created)+len(deleted)+statuses > 0 {
			t.Errorf("created %v, deleted %v, %d statuses", created, deleted, statuses)
		}
	})
}

// TestLostAnswers: the pod is stored, and the answer is a timeout, also across a restart in the middle.
func TestLostAnswers(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart=%v", restart), func(t *testing.T) {
			inBubble(t, []runtime.Object{testDaemonSet()}, func(c *cluster) {
				c.rest()
				c.writer.mu.Lock()
				c.writer.create = func(*corev1.Pod) (error, bool) { return errors.New("connection lost"), true }
				c.writer.mu.Unlock()
				for _, o := range threeNodes() {
					if _, err := c.client.CoreV1().Nodes().Create(context.Background(), o.(*corev1.Node), metav1.CreateOptions{}); err != nil {
						t.Fatal(err)
					}
				}
				if restart {
					time.Sleep(3 * time.Millisecond)
					c.restart()
				}
				c.rest()
				if got := c.nodesWithPods(); got != "n1 n2 n3" {
					t.Errorf("pods on %q", got)
				}
				if created, deleted, _ := c.writer.writes(); len(created) != 3 || len(deleted) != 0 {
					t.Errorf("created %v, deleted %v", created, deleted)
				}
			})
		})
	}
}

// TestNameTaken: a pod of somebody else's has the name that ours should have.
func TestNameTaken(t *testing.T) {
	inBubble(t, []runtime.Object{testNode("n1"), testDaemonSet()}, func(c *cluster) {
		c.rest()
		pod := c.pods()[0]
		foreign := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ops", Name: pod.Name, UID: "foreign"}}
		ctx, pods := context.Background(), c.client.CoreV1().Pods("ops")
		if err := pods.Delete(ctx, pod.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := pods.Create(ctx, foreign, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.rest()
		if got := c.nodesWithPods(); got != " n1" {
			t.Errorf("pods on %q", got)
		}
	})
}

func TestFailingCreatesAreFew(t *testing.T) {
	inBubble(t, []runtime.Object{testDaemonSet()}, func(c *cluster) {
		tried := 0
		c.writer.create = func(*corev1.Pod) (error, bool) {
			tried++
			return apierrors.NewForbidden(corev1.Resource("pods"), "", errors.New("exceeded quota")), false
		}
		c.rest()
		for i := range 90 { // the fake's watch holds 100 events
			if err := c.client.Tracker().Add(testNode(fmt.Sprintf("n%03d", i))); err != nil {
				t.Fatal(err)
			}
		}
		for range 20 {
			c.rest() // a minute
		}
		if tried == 0 || tried > 100 {
			t.Errorf("%d creates in a minute, all refused", tried)
		}
		if got := c.reasons()["FailedCreate"]; got == 0 || got > 30 {
			t.Errorf("%d FailedCreate events", got)
		}
		c.writer.mu.Lock()
		c.writer.create = nil
		c.writer.mu.Unlock()
		for range 25 {
			c.rest()
		}
		if got := len(c.pods()); got != 90 {
			t.Errorf("%d pods once creates work", got)
		}
	})
}

func TestRollingUpdateAndRollback(t *testing.T) {
	inBubble(t, threeNodes(testDaemonSet()), func(c *cluster) {
		c.rest()
		c.makeReady()
		c.rest()
		roll := func(image string) {
			t.Helper()
			c.writer.writes()
			c.setImage(image)
			for step := range 3 {
				c.rest()
				if created, deleted, _ := c.writer.writes(); len(created) != 1 || len(deleted) != 1 {
					t.Fatalf("%s, step %d: created %v, deleted %v, want one at a time", image, step, created, deleted)
				}
				c.makeReady()
			}
			c.rest()
			if st := c.daemonSet().Status; st.UpdatedNumberScheduled != 3 || st.NumberAvailable != 3 || st.ObservedGeneration != c.daemonSet().Generation {
				t.Fatalf("%s: status %+v", image, st)
			}
		}
		for _, image := range []string{"agent:2", "agent:3", "agent:4"} {
			roll(image)
		}
		numbers := func() (n []int64) {
			for _, r := range c.revisions() {
				n = append(n, r.Revision)
			}
			return n
		}
		if d := cmp.Diff([]int64{2, 3, 4}, numbers()); d != "" { // a limit of 2 besides the current one
			t.Errorf("history (-want +got):\n%s", d)
		}
		roll("agent:2")
		if d := cmp.Diff([]int64{3, 4, 5}, numbers()); d != "" {
			t.Errorf("history after the rollback (-want +got):\n%s", d)
		}
		if names := len(c.pods()); names != 3 {
			t.Errorf("%d pods", names)
		}
	})
}

func orphanPod(node string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ops", Name: "orphan-" + node, UID: types.UID("orphan-" + node), Labels: map[string]string{"app": "agent"}},
		Spec:       corev1.PodSpec{NodeName: node},
	}
}

func TestAdoptionAndRelease(t *testing.T) {
	inBubble(t, append([]runtime.Object{testNode("n1"), orphanPod("n1")}, testDaemonSet()), func(c *cluster) {
		c.rest()
		if got := c.nodesWithPods(); got != "n1" {
			t.Fatalf("pods on %q", got)
		}
		// OnDelete would keep it; a rolling update replaces it, since it is of no known revision and not available.
		pods := c.client.CoreV1().Pods("ops")
		p := c.pods()[0]
		if !metav1.IsControlledBy(&p, c.daemonSet()) {
			t.Fatalf("owners of %s: %v", p.Name, p.OwnerReferences)
		}
		p.Labels = map[string]string{"app": "debugging"}
		if _, err := pods.Update(context.Background(), &p, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.rest()
		if got := c.nodesWithPods(); got != "n1 n1" {
			t.Errorf("pods on %q, want the released one and a new one", got)
		}
		released, err := pods.Get(context.Background(), p.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(released.OwnerReferences) != 0 {
			t.Errorf("owners of the released pod: %v", released.OwnerReferences)
		}
	})
}

// TestDeletedDaemonSetAdoptsNothing: the cache does not know yet that the DaemonSet is being deleted.
func TestDeletedDaemonSetAdoptsNothing(t *testing.T) {
	inBubble(t, []runtime.Object{testNode("n1"), testDaemonSet()}, func(c *cluster) {
		c.rest()
		c.client.PrependReactor("get", "daemonsets", func(clienttesting.Action) (bool, runtime.Object, error) {
			ds, now := testDaemonSet(), metav1.Now()
			ds.DeletionTimestamp = &now
			return true, ds, nil
		})
		if err := c.client.Tracker().Add(orphanPod("n1")); err != nil {
			t.Fatal(err)
		}
		c.rest()
		for _, p := range c.pods() {
			if p.Name == "orphan-n1" && len(p.OwnerReferences) > 0 {
				t.Errorf("adopted: %v", p.OwnerReferences)
			}
		}
	})
}

func TestDeletingDaemonSetIsLeftAlone(t *testing.T) {
	ds, now := testDaemonSet(), metav1.Now()
	ds.DeletionTimestamp, ds.Finalizers = &now, []string{"foregroundDeletion"}
	inBubble(t, threeNodes(ds), func(c *cluster) {
		c.rest()
		if created, _, statuses := c.writer.writes(); len(created)+statuses > 0 {
			t.Errorf("created %v, %d statuses", created, statuses)
		}
	})
}

func TestFailedPodIsReplaced(t *testing.T) {
	inBubble(t, []runtime.Object{testNode("n1"), testDaemonSet()}, func(c *cluster) {
		c.rest()
		failed := c.pods()[0]
		failed.Status.Phase = corev1.PodFailed
		if _, err := c.client.CoreV1().Pods("ops").UpdateStatus(context.Background(), &failed, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.rest()
		pods := c.pods()
		if len(pods) != 1 || pods[0].Name == failed.Name {
			t.Errorf("%d pods, the first is %s", len(pods), pods[0].Name)
		}
		if got := c.reasons()["FailedDaemonPod"]; got != 1 {
			t.Errorf("%d FailedDaemonPod events", got)
		}
	})
}

func TestStatusConflictIsRetried(t *testing.T) {
	inBubble(t, threeNodes(), func(c *cluster) {
		conflicts := 2
		c.writer.status = func() error {
			if conflicts--; conflicts >= 0 {
				return apierrors.NewConflict(appsv1.Resource("daemonsets"), "agent", errors.New("changed"))
			}
			return nil
		}
		if err := c.client.Tracker().Add(testDaemonSet()); err != nil {
			t.Fatal(err)
		}
		c.rest()
		if got := c.daemonSet().Status.CurrentNumberScheduled; got != 3 || conflicts > 0 {
			t.Errorf("current %d, %d conflicts left", got, conflicts)
		}
	})
}

// TestHashCollision: another template has the revision's name.
func TestHashCollision(t *testing.T) {
	ds := testDaemonSet()
	inBubble(t, threeNodes(ds), func(c *cluster) {
		c.rest()
		taken := c.revisions()[0]
		c.stop()
		taken.Data.Raw = []byte(`{"spec":{"template":{"$patch":"replace","spec":{}}}}`)
		if _, err := c.client.AppsV1().ControllerRevisions("ops").Update(context.Background(), &taken, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.start()
		c.rest()
		if count := c.daemonSet().Status.CollisionCount; count == nil || *count != 1 {
			t.Errorf("collision count %v", count)
		}
		if got := len(c.revisions()); got != 2 {
			t.Errorf("%d revisions", got)
		}
	})
}

func TestNoRoomLeavesThePodToTheScheduler(t *testing.T) {
	full := testNode("n1")
	full.Status.Allocatable[corev1.ResourcePods] = *full.Status.Allocatable.Cpu() // 2
	busy := func(name string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: name}, Spec: corev1.PodSpec{NodeName: "n1"}}
	}
	inBubble(t, []runtime.Object{full, busy("a"), busy("b"), testDaemonSet()}, func(c *cluster) {
		c.rest()
		pods := c.pods()
		if len(pods) != 1 || pods[0].Spec.NodeName != "" {
			t.Errorf("pods: %+v", pods)
		}
		if got := c.reasons()["FailedPlacement"]; got != 1 {
			t.Errorf("%d FailedPlacement events", got)
		}
	})
}

func TestOptionsSayWhatIsMissing(t *testing.T) {
	client := fake.NewClientset()
	for _, o := range []Options{{}, {Client: client, Parallelism: -1}, {Client: client, UnseenAfter: -1}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}

// What can never run is accepted, and the events say plainly why it does not.
func TestNeverRunsIsSaid(t *testing.T) {
	const large = "memory short by 1Ti: 1Ti asked, the node has 0 free; the node would be too small even if it were empty"
	for name, x := range map[string]struct {
		change func(*corev1.PodSpec)
		want   string
	}{
		"contradiction": {func(s *corev1.PodSpec) {
			s.NodeSelector = map[string]string{"disk": "ssd"}
			s.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "disk", Operator: corev1.NodeSelectorOpNotIn, Values: []string{"ssd"}}}}},
			}}}
		}, "It can never run on any node: affinity term 1: disk not in (ssd) contradicts disk in (ssd)"},
		"too large": {func(s *corev1.PodSpec) {
			s.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Ti")}
		}, large},
	} {
		t.Run(name, func(t *testing.T) {
			ds := testDaemonSet()
			x.change(&ds.Spec.Template.Spec)
			inBubble(t, []runtime.Object{testNode("n1"), ds}, func(c *cluster) {
				c.rest()
				c.change(func(ds *appsv1.DaemonSet) { ds.Spec.MinReadySeconds = 1 }) // says nothing new
				c.rest()
				var said []string
				for len(c.events.Events) > 0 {
					if e := <-c.events.Events; strings.Contains(e, "FailedPlacement") {
						said = append(said, e)
					}
				}
				if len(said) != 1 || !strings.Contains(said[0], x.want) {
					t.Errorf("said %q, want %q once", said, x.want)
				}
			})
		})
	}
}

// TestManyEventsAreToldTogether: kubectl describe shows the first pods by name, and how many there were besides.
func TestManyEventsAreToldTogether(t *testing.T) {
	objects := []runtime.Object{testDaemonSet()}
	for i := range 100 {
		objects = append(objects, testNode(fmt.Sprintf("n%02d", i)))
	}
	inBubble(t, objects, func(c *cluster) {
		c.rest()
		var told []string
		for len(c.events.Events) > 0 {
			told = append(told, <-c.events.Events)
		}
		if len(told) != 9 || told[8] != "Normal SuccessfulCreate Created 92 more pods" {
			t.Errorf("%d events: %v", len(told), told)
		}
	})
}

// A revision that repeats the current one is its maker's until the template changes.
func TestDuplicateRevisionIsLeftAlone(t *testing.T) {
	inBubble(t, threeNodes(testDaemonSet()), func(c *cluster) {
		c.rest()
		double := c.revisions()[0]
		double.Name, double.ResourceVersion, double.UID = double.Name+"-again", "", ""
		double.Revision++
		if _, err := c.client.AppsV1().ControllerRevisions("ops").Create(context.Background(), &double, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.rest()
		if n := len(c.revisions()); n != 2 {
			t.Errorf("%d revisions after one was doubled, want 2", n)
		}
		c.setImage("agent:2")
		c.rest()
		c.setImage("agent:1")
		c.rest()
		if n := len(c.revisions()); n != 2 {
			t.Errorf("%d revisions after the template went and came back, want 2: the doubled one once", n)
		}
	})
}
