package node

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// containerd is a runtime whose state the test sets.
type containerd struct {
	mu      sync.Mutex
	down    bool
	network bool
}

func (c *containerd) set(f func(*containerd)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(c)
}

func (c *containerd) Version(context.Context, string) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{RuntimeName: "containerd", RuntimeVersion: "1.6.20"}, nil
}

func (c *containerd) Status(context.Context, bool) (*runtimeapi.StatusResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down {
		return nil, errors.New("connection refused")
	}
	return &runtimeapi.StatusResponse{Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: runtimeapi.RuntimeReady, Status: true},
		{Type: runtimeapi.NetworkReady, Status: c.network, Reason: "NetworkPluginNotReady", Message: "cni plugin not initialized"},
	}}}, nil
}

// fixture is a node that reports to a fake API server; it runs in the test's bubble.
type fixture struct {
	*Node
	t       *testing.T
	client  *fake.Clientset
	runtime *containerd
	writes  atomic.Int32
}

func start(t *testing.T, objects ...runtime.Object) *fixture {
	t.Helper()
	f := &fixture{t: t, client: fake.NewClientset(objects...), runtime: &containerd{network: true}}
	f.client.PrependReactor("update", "nodes", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if a.GetSubresource() == "status" {
			f.writes.Add(1)
		}
		return false, nil, nil
	})
	n, err := New(Options{
		Name: "n1", IP: net.ParseIP("10.0.0.1"), Port: 10250, DataDir: t.TempDir(),
		Labels: map[string]string{"pool": "edge"}, Client: f.client, Runtime: f.runtime,
	})
	if err != nil {
		t.Fatal(err)
	}
	n.machine = computer(t)
	f.Node = n
	return f
}

func (f *fixture) run(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error)
	go func() { ended <- f.Run(ctx) }()
	synctest.Wait()
	return func() { cancel(); <-ended }
}

func (f *fixture) get() *corev1.Node {
	f.t.Helper()
	node, err := f.client.CoreV1().Nodes().Get(context.Background(), "n1", metav1.GetOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	return node
}

func (f *fixture) ready() corev1.ConditionStatus {
	if c := find(f.get().Status.Conditions, corev1.NodeReady); c != nil {
		return c.Status
	}
	return "absent"
}

func (f *fixture) assign() {
	f.t.Helper()
	node := f.get()
	node.Spec.PodCIDR = "10.42.0.0/24"
	if _, err := f.client.CoreV1().Nodes().Update(context.Background(), node, metav1.UpdateOptions{}); err != nil {
		f.t.Fatal(err)
	}
}

func reserved1() *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "u1", Labels: map[string]string{"by": "admin"}, Annotations: map[string]string{joinAnnotation: "csr-1"}}}
}

func TestRegistersAndBecomesReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, reserved1())
		defer f.run(t.Context())()
		if got := f.ready(); got != corev1.ConditionFalse {
			t.Errorf("Ready %s without a pod range, want False", got)
		}
		f.assign()
		begin := time.Now()
		for f.ready() != corev1.ConditionTrue && time.Since(begin) < time.Second {
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(begin); took > 5*time.Millisecond {
			t.Errorf("ready %s after the range came, want within milliseconds", took)
		}
		node := f.get()
		for key, want := range map[string]string{"pool": "edge", "by": "admin", corev1.LabelHostname: "n1", corev1.LabelOSStable: "linux"} {
			if node.Labels[key] != want {
				t.Errorf("label %s=%q, want %q", key, node.Labels[key], want)
			}
		}
		if node.Status.NodeInfo.ContainerRuntimeVersion != "containerd://1.6.20" || node.Status.DaemonEndpoints.KubeletEndpoint.Port != 10250 ||
			node.Status.Features == nil || *node.Status.Features.SupplementalGroupsPolicy ||
			!slices.Contains(node.Status.DeclaredFeatures, "RestartAllContainersOnContainerExits") ||
			len(node.Status.Addresses) != 2 || node.Status.Addresses[0].Address != "10.0.0.1" {
			t.Errorf("status %+v", node.Status)
		}
	})
}

func TestCreatesItsNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t)
		defer f.run(t.Context())()
		if f.get().Labels["pool"] != "edge" {
			t.Errorf("labels %v", f.get().Labels)
		}
	})
}

func TestRegistrationIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t)
		var refused atomic.Int32
		f.client.PrependReactor("get", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) {
			if refused.Add(1) <= 3 {
				return true, nil, apierrors.NewServiceUnavailable("starting")
			}
			return false, nil, nil
		})
		defer f.run(t.Context())()
		time.Sleep(5 * time.Second)
		if f.ready() == "absent" {
			t.Error("not registered after the server came back")
		}
	})
}

func TestRestartDoesNotFlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := reserved1()
		node.Spec.PodCIDR = "10.42.0.0/24"
		node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady"}}
		f := start(t, node)
		f.runtime.network = false
		defer f.run(t.Context())()
		time.Sleep(startPatience - time.Second)
		if f.ready() != corev1.ConditionTrue || f.writes.Load() != 0 {
			t.Errorf("Ready %s, %d writes while the network comes up", f.ready(), f.writes.Load())
		}
		time.Sleep(2 * time.Second)
		if f.ready() != corev1.ConditionFalse {
			t.Error("a network that does not come up is not reported")
		}
	})
}

func TestWritesOnlyOnChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, reserved1())
		defer f.run(t.Context())()
		f.assign()
		time.Sleep(time.Minute)
		before := f.writes.Load()
		time.Sleep(reportAtLeast - time.Minute - 5*time.Second)
		if n := f.writes.Load() - before; n != 0 {
			t.Errorf("%d status writes while nothing changed", n)
		}
		time.Sleep(2 * measureEvery)
		if n := f.writes.Load() - before; n != 1 {
			t.Errorf("%d status writes in the fifth minute, want 1", n)
		}
		f.runtime.set(func(c *containerd) { c.down = true })
		time.Sleep(2 * measureEvery)
		if f.ready() != corev1.ConditionFalse || f.get().Status.NodeInfo.ContainerRuntimeVersion == "" {
			t.Errorf("Ready %s with the runtime down, runtime version %q", f.ready(), f.get().Status.NodeInfo.ContainerRuntimeVersion)
		}
		f.runtime.set(func(c *containerd) { c.down = false })
		time.Sleep(2 * time.Second)
		if f.ready() != corev1.ConditionTrue {
			t.Errorf("Ready %s after the runtime came back", f.ready())
		}
	})
}

func TestRenewsItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, reserved1())
		defer f.run(t.Context())()
		lease := func() time.Time {
			l, err := f.client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Get(t.Context(), "n1", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if *l.Spec.HolderIdentity != "n1" || *l.Spec.LeaseDurationSeconds != 40 || l.OwnerReferences[0].UID != "u1" {
				t.Errorf("lease %+v", l)
			}
			return l.Spec.RenewTime.Time
		}
		first := lease()
		time.Sleep(11 * time.Second)
		if !lease().After(first) {
			t.Error("the lease was not renewed within 11 s")
		}
	})
}

func TestDeletedNodeIsNotMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, reserved1())
		defer f.run(t.Context())()
		if err := f.client.CoreV1().Nodes().Delete(t.Context(), "n1", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		before := f.writes.Load()
		time.Sleep(10 * time.Minute)
		if _, err := f.client.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("the Node was made again (%v)", err)
		}
		if n := f.writes.Load() - before; n > 1 {
			t.Errorf("%d status writes for a Node that is gone", n)
		}

		// Another agent has taken the name: nothing of this one may reach it.
		taken := reserved1()
		taken.UID, taken.Annotations[joinAnnotation] = "u2", "csr-2"
		if _, err := f.client.CoreV1().Nodes().Create(t.Context(), taken, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if f.ready() != "absent" {
			t.Error("reported to the Node of another agent")
		}
	})
}

func TestNodePutBackByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, reserved1())
		defer f.run(t.Context())()
		nodes := f.client.CoreV1().Nodes()
		if err := nodes.Delete(t.Context(), "n1", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		back := reserved1()
		back.UID = "u3"
		if _, err := nodes.Create(t.Context(), back, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if f.ready() == "absent" {
			t.Error("nothing is reported to the Node that was put back")
		}
	})
}

func TestConflictingStatusIsMerged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, reserved1())
		var once sync.Once
		f.client.PrependReactor("update", "nodes", func(a clienttesting.Action) (bool, runtime.Object, error) {
			conflict := false
			if a.GetSubresource() == "status" {
				once.Do(func() { conflict = true })
			}
			if !conflict {
				return false, nil, nil
			}
			nodes := corev1.SchemeGroupVersion.WithResource("nodes")
			obj, err := f.client.Tracker().Get(nodes, "", "n1")
			if err != nil {
				t.Error(err)
			}
			node := obj.(*corev1.Node).DeepCopy()
			node.Status.Conditions = append(node.Status.Conditions, corev1.NodeCondition{Type: "KernelDeadlock", Status: corev1.ConditionFalse})
			if err := f.client.Tracker().Update(nodes, node, ""); err != nil {
				t.Error(err)
			}
			return true, nil, apierrors.NewConflict(corev1.Resource("nodes"), "n1", errors.New("changed"))
		})
		defer f.run(t.Context())()
		time.Sleep(time.Second)
		if f.ready() == "absent" || find(f.get().Status.Conditions, "KernelDeadlock") == nil {
			t.Errorf("conditions %s, want ours and the other reporter's", summary(f.get().Status.Conditions))
		}
	})
}
