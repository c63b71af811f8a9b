package nodehealth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"

	machine "github.com/everynode/everynode/internal/decide/nodehealth"
	"github.com/everynode/everynode/test/fakeapi"
)

const leases = corev1.NamespaceNodeLease

// cluster is a fake API and the controller that runs on it, inside one synctest bubble.
type cluster struct {
	t      *testing.T
	client *fake.Clientset
	events *record.FakeRecorder
	alive  map[string]context.CancelFunc
	stop   func()
}

func newCluster(t *testing.T, objects ...runtime.Object) *cluster {
	t.Helper()
	c := &cluster{t: t, client: fake.NewClientset(objects...), events: record.NewFakeRecorder(1000), alive: map[string]context.CancelFunc{}}
	c.start()
	return c
}

// start runs a controller, as a process that begins with nothing.
func (c *cluster) start() {
	c.t.Helper()
	c.stop = fakeapi.Start(c.t, c.client, func(f informers.SharedInformerFactory) (*Controller, error) {
		return New(Options{Client: c.client, Informers: f, Recorder: c.events})
	})
}

// end stops everything, so that the bubble can end.
func (c *cluster) end() {
	for _, silence := range c.alive {
		silence()
	}
	c.stop()
}

func (c *cluster) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func newNode(name string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-" + name)},
		Spec:       corev1.NodeSpec{Taints: []corev1.Taint{{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}}},
	}
}

// join makes a node whose agent reports and renews.
func (c *cluster) join(names ...string) {
	c.t.Helper()
	for _, name := range names {
		if _, err := c.client.CoreV1().Nodes().Create(context.Background(), newNode(name), metav1.CreateOptions{}); err != nil {
			c.t.Fatal(err)
		}
		c.back(name)
	}
}

// back has a node's agent report that it is ready, and renew its lease every ten seconds from then on.
func (c *cluster) back(name string) {
	c.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c.alive[name] = cancel
	c.renew(name)
	n := c.node(name)
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now()}}
	if _, err := c.client.CoreV1().Nodes().UpdateStatus(ctx, n, metav1.UpdateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(10 * time.Second):
				c.renew(name)
			}
		}
	}()
}

func (c *cluster) renew(name string) {
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: leases, Name: name}, Spec: coordinationv1.LeaseSpec{RenewTime: ptr.To(metav1.NowMicro())}}
	_, err := c.client.CoordinationV1().Leases(leases).Update(context.Background(), l, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		_, err = c.client.CoordinationV1().Leases(leases).Create(context.Background(), l, metav1.CreateOptions{})
	}
	if err != nil {
		c.t.Error(err)
	}
}

func (c *cluster) silence(name string) { c.alive[name]() }

func (c *cluster) node(name string) *corev1.Node {
	c.t.Helper()
	n, err := c.client.CoreV1().Nodes().Get(context.Background(), name, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

// looks describes a node: "True", or "Unknown unreachable:NoExecute …".
func (c *cluster) looks(name string) string {
	c.t.Helper()
	n := c.node(name)
	var words []string
	for _, t := range n.Spec.Taints {
		words = append(words, strings.TrimPrefix(t.ToString(), "node.kubernetes.io/"))
	}
	slices.Sort(words)
	for _, cond := range n.Status.Conditions {
		if cond.Type == corev1.NodeReady {
			words = append([]string{string(cond.Status)}, words...)
		}
	}
	return strings.Join(words, " ")
}

func (c *cluster) pod(name, node string, seconds *int64) {
	c.t.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ops", Name: name, UID: types.UID("uid-" + name)},
		Spec: corev1.PodSpec{NodeName: node, Tolerations: []corev1.Toleration{
			{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: seconds},
		}},
		Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, Reason: "Up"}}},
	}
	if _, err := c.client.CoreV1().Pods("ops").Create(context.Background(), p, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// podLooks is the pod's readiness, or "gone".
func (c *cluster) podLooks(name string) string {
	c.t.Helper()
	p, err := c.client.CoreV1().Pods("ops").Get(context.Background(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "gone"
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return string(p.Status.Conditions[0].Status)
}

func (c *cluster) heard() []string {
	var all []string
	for {
		select {
		case e := <-c.events.Events:
			all = append(all, e)
		default:
			slices.Sort(all)
			return all
		}
	}
}

func (c *cluster) want(what, got, want string) {
	c.t.Helper()
	if got != want {
		c.t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func TestASilentNodeAndItsPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.end()
		c.join("n1", "n2")
		c.pod("leaves", "n2", ptr.To(int64(60)))
		c.pod("stays", "n2", nil)
		c.pod("elsewhere", "n1", ptr.To(int64(0)))
		c.pass(time.Second)
		c.want("a node that is ready", c.looks("n2"), "True")

		c.silence("n2")
		c.pass(39 * time.Second)
		c.want("before the grace period is over", c.looks("n2"), "True")
		c.pass(2 * time.Second)
		c.want("after it", c.looks("n2"), "Unknown unreachable:NoExecute unreachable:NoSchedule")
		c.want("its pod", c.podLooks("leaves"), "False")
		c.want("another pod", c.podLooks("elsewhere"), "True")
		n := c.node("n2")
		if len(n.Status.Conditions) != 4 || n.Status.Conditions[0].Message != "Kubelet stopped posting node status." || n.Spec.Taints[0].TimeAdded.IsZero() {
			t.Errorf("conditions %v, taints %v", n.Status.Conditions, n.Spec.Taints)
		}
		c.pass(time.Minute)
		c.want("when its time is over", c.podLooks("leaves"), "gone")
		c.want("who tolerates it forever", c.podLooks("stays"), "False")
		c.want("events", strings.Join(c.heard(), "\n"), strings.Join([]string{
			"Normal NodeNotReady Node n2 status is now: NodeNotReady",
			"Normal TaintManagerEviction Marking for deletion Pod ops/leaves",
			"Warning NodeNotReady Node is not ready",
			"Warning NodeNotReady Node is not ready",
		}, "\n"))

		c.back("n2")
		c.pass(time.Second)
		c.want("when it is back", c.looks("n2"), "True")
		c.want("the other node, all the time", c.looks("n1"), "True")
	})
}

func TestANewLeaderGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.end()
		c.join("n1", "n2")
		c.pod("p", "n2", ptr.To(int64(30)))
		c.silence("n2")
		c.pass(30 * time.Second)
		c.stop()
		c.start()
		c.pass(38 * time.Second)
		c.want("it has not seen n2 silent for long enough", c.looks("n2"), "True")
		c.pass(3 * time.Second)
		c.want("now it has", c.looks("n2"), "Unknown unreachable:NoExecute unreachable:NoSchedule")
		c.stop()
		c.start()
		c.pass(31 * time.Second)
		c.want("the pod's time begins again, and ends", c.podLooks("p"), "gone")
	})
}

func TestWritesThatFailAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.end()
		refused := map[string]int{}
		for _, r := range []struct{ verb, resource string }{{"patch", "nodes"}, {"patch", "pods"}, {"delete", "pods"}} {
			c.client.PrependReactor(r.verb, r.resource, func(a clienttesting.Action) (bool, runtime.Object, error) {
				what := fmt.Sprint(a.GetVerb(), a.GetResource().Resource, a.GetSubresource())
				if refused[what]++; refused[what] <= 3 {
					return true, nil, errors.New("planted")
				}
				return false, nil, nil
			})
		}
		c.join("n1", "n2")
		c.pod("p", "n2", ptr.To(int64(0)))
		c.pass(10 * time.Second)
		c.want("ready after some tries", c.looks("n2"), "True")
		c.silence("n2")
		c.pass(70 * time.Second)
		c.want("unreachable after some tries", c.looks("n2"), "Unknown unreachable:NoExecute unreachable:NoSchedule")
		c.want("its pod", c.podLooks("p"), "gone")
		for what, n := range refused {
			if n < 4 {
				t.Errorf("%s was tried %d times", what, n)
			}
		}
		writes := len(c.client.Actions())
		for name := range c.alive {
			c.silence(name) // the renewals, which are actions too
		}
		c.back("n1")
		c.pass(5 * time.Second)
		if now := len(c.client.Actions()); now > writes+4 { // what back does: two writes and a read each
			t.Errorf("%d more calls when there is nothing to do: %v", now-writes, c.client.Actions()[writes:])
		}
	})
}

// What the writes carry keeps them from undoing what a node said meanwhile, and from deleting a later pod.
func TestWritesHavePreconditions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.end()
		c.join("n1", "n2")
		c.pod("p", "n2", ptr.To(int64(0)))
		c.silence("n2")
		c.pass(time.Minute)
		seen := map[string]bool{}
		for _, a := range c.client.Actions() {
			switch a := a.(type) {
			case clienttesting.PatchAction:
				seen[a.GetResource().Resource+"/"+a.GetSubresource()] = true
				if !strings.Contains(string(a.GetPatch()), `"uid":"uid-`) {
					t.Errorf("patch without UID: %s", a.GetPatch())
				}
			case clienttesting.DeleteActionImpl:
				seen["delete"] = true
				if p := a.DeleteOptions.Preconditions; p == nil || p.UID == nil || *p.UID != "uid-p" {
					t.Errorf("preconditions %v", p)
				}
			}
		}
		if len(seen) != 4 {
			t.Errorf("saw only %v", seen)
		}
	})
}

func TestAConflictWaitsForTheNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.end()
		var changed atomic.Bool
		c.client.PrependReactor("patch", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) {
			if changed.Load() {
				return false, nil, nil
			}
			return true, nil, apierrors.NewConflict(corev1.Resource("nodes"), "n1", errors.New("planted"))
		})
		c.join("n1")
		c.pass(time.Second)
		c.want("while it changes", c.looks("n1"), "True not-ready:NoSchedule")
		n := c.node("n1")
		n.Labels = map[string]string{"changed": "true"}
		changed.Store(true)
		if _, err := c.client.CoreV1().Nodes().Update(context.Background(), n, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.pass(10 * time.Millisecond)
		c.want("when that is seen", c.looks("n1"), "True")
	})
}

func TestEventsAreBounded(t *testing.T) {
	var b eventBudget
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	said := 0
	for range 1000 {
		if b.spend(now) {
			said++
		}
	}
	if said != eventBurst {
		t.Errorf("%d events at once, want %d", said, eventBurst)
	}
	if b.spend(now.Add(eventEvery/2)) || !b.spend(now.Add(eventEvery)) {
		t.Error("the budget does not fill up again")
	}
}

func TestOptionsValidate(t *testing.T) {
	client := fake.NewClientset()
	factory := informers.NewSharedInformerFactory(client, 0)
	for want, o := range map[string]Options{
		"Client":      {},
		"Informers":   {Client: client},
		"Parallelism": {Client: client, Informers: factory, Parallelism: -1},
		"grace":       {Client: client, Informers: factory, Patience: machine.Options{GracePeriod: -1}},
	} {
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}
