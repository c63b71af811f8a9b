package integration

import (
	"context"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"github.com/everynode/everynode/internal/apiserver"
	"github.com/everynode/everynode/internal/apiserver/pki"
	"github.com/everynode/everynode/internal/controllers"
	"github.com/everynode/everynode/internal/controllers/daemonset"
	"github.com/everynode/everynode/internal/controllers/election"
	"github.com/everynode/everynode/internal/controllers/housekeeping/ranges"
	"github.com/everynode/everynode/internal/scheduler"
	"github.com/everynode/everynode/internal/store"
)

// gracePeriod is how late a node's lease may be here.
const gracePeriod = 4 * time.Second

// cluster is a control plane in this process.
type cluster struct {
	kubernetes.Interface
	server *apiserver.Server
	bundle *pki.Bundle
	config *rest.Config
	ranges *ranges.Ledger

	depose context.CancelCauseFunc // ends the term under way
	terms  chan struct{}           // one value a term that began
}

// start runs a control plane until the test ends. Its cluster CIDR has room for 16 nodes.
func start(t *testing.T) *cluster {
	t.Helper()
	quiet(t)
	ctx, stop := context.WithCancel(context.Background())
	dir := t.TempDir()
	backend, err := store.Open(ctx, store.Options{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := pki.Ensure(ctx, dir+"/pki", nil)
	if err != nil {
		t.Fatal(err)
	}
	nodeRanges := &ranges.Ledger{}
	server, err := apiserver.New(ctx, apiserver.Options{
		DataDir: dir, Listen: "127.0.0.1:0", Store: backend, PKI: bundle,
		ServiceCIDR: cidr("10.43.0.0/16"), ClusterCIDR: cidr("10.42.0.0/20"), NodeRanges: nodeRanges,
	})
	if err != nil {
		t.Fatal(err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return server.Run(ctx) })
	select {
	case <-server.Ready():
	case <-time.After(20 * time.Second):
		t.Fatal("the API server is not ready after 20 s")
	}
	c := &cluster{server: server, bundle: bundle, config: server.ClientConfig(), ranges: nodeRanges, terms: make(chan struct{}, 99)}
	if c.Interface, err = kubernetes.NewForConfig(c.config); err != nil {
		t.Fatal(err)
	}
	ledCtx, stopLed := context.WithCancel(ctx)
	led := make(chan error, 1)
	go func() {
		led <- election.Run(ledCtx, c, "test_1", func(term context.Context) error { return c.lead(ctx, term) })
	}()
	t.Cleanup(func() {
		began := time.Now()
		stopLed()
		if err := <-led; err != nil {
			t.Errorf("election: %v", err)
		}
		if d := time.Since(began); d > 3*time.Second {
			t.Errorf("led work took %v to stop", d)
		}
		stop()
		if err := g.Wait(); err != nil {
			t.Errorf("server: %v", err)
		}
		backend.Close()
	})
	<-c.terms
	return c
}

// lead is one term, as internal/cli composes it.
func (c *cluster) lead(life, term context.Context) error {
	term, c.depose = context.WithCancelCause(term)
	defer c.depose(nil)
	cfg := election.Fence(term, c.config)
	informers, err := controllers.ShareInformers(term, life, c.server.Informers(), cfg)
	if err != nil {
		return err
	}
	c.terms <- struct{}{}
	g, ctx := errgroup.WithContext(term)
	g.Go(func() error {
		return controllers.Run(ctx, controllers.Options{
			Config: cfg, Informers: informers, Writer: c.server.Writer(), Ranges: c.ranges,
			Sources: (*daemonset.Sources)(c.server.Sources()),
			CAFile:  c.bundle.CACertFile(), CAKeyFile: c.bundle.CAKeyFile(), SAKeyFile: c.bundle.ServiceAccountKeyFile(),
			ClusterCIDR: cidr("10.42.0.0/20"), ServiceCIDR: cidr("10.43.0.0/16"),
			NodeMonitorGracePeriod: gracePeriod,
		})
	})
	g.Go(func() error { return scheduler.Run(ctx, scheduler.Options{Config: cfg, Informers: informers}) })
	return g.Wait()
}

// quiet sends the log to a file which is shown when the test fails.
func quiet(t *testing.T) {
	f, err := os.CreateTemp("", "integration-*.log")
	if err != nil {
		t.Fatal(err)
	}
	klog.LogToStderr(false)
	klog.SetOutput(f)
	t.Cleanup(func() {
		klog.Flush()
		if t.Failed() {
			t.Logf("the control plane's log is %s", f.Name())
			return
		}
		_ = os.Remove(f.Name())
	})
}

func cidr(s string) *net.IPNet {
	_, n, err := net.ParseCIDR(s)
	if err != nil {
		panic(err)
	}
	return n
}

// await polls until what holds; got tells what is seen instead.
func await(t *testing.T, what string, holds func() (bool, string)) {
	t.Helper()
	const patience = 70 * time.Second
	var got string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		var ok bool
		if ok, got = holds(); ok {
			return
		}
	}
	t.Fatalf("after %v still not: %s; seen: %s", patience, what, got)
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// gone tells whether a Get found nothing.
func gone(_ any, err error) (bool, string) { return apierrors.IsNotFound(err), fmt.Sprint(err) }

// namespace makes a namespace for the test, and waits until pods can be made in it.
func (c *cluster) namespace(t *testing.T, name string) string {
	t.Helper()
	must[*corev1.Namespace](t)(c.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}))
	await(t, "service account default in "+name, func() (bool, string) {
		_, err := c.CoreV1().ServiceAccounts(name).Get(t.Context(), "default", metav1.GetOptions{})
		return err == nil, fmt.Sprint(err)
	})
	return name
}

// node makes a Node which is ready and stays so until the returned function is called (see alive). It is
// deleted when the test ends: many silent nodes would look like a failure of the network, which
// stops evictions.
func (c *cluster) node(t *testing.T, name string, labels map[string]string) (stop context.CancelFunc) {
	t.Helper()
	ctx := context.Background()
	must[*corev1.Node](t)(c.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, metav1.CreateOptions{}))
	t.Cleanup(func() {
		if err := c.CoreV1().Nodes().Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			t.Errorf("deleting node %s: %v", name, err)
		}
	})
	return c.alive(t, name)
}

// alive has a node report that it is ready, and renew its lease from then on, until the returned function is
// called.
func (c *cluster) alive(t *testing.T, name string) (stop context.CancelFunc) {
	t.Helper()
	ctx := context.Background()
	room := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("2Gi"), corev1.ResourcePods: resource.MustParse("20")}
	await(t, "status of "+name, func() (bool, string) { // the range allocator writes it too
		n, err := c.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, err.Error()
		}
		now := metav1.Now()
		n.Status = corev1.NodeStatus{
			Capacity: room, Allocatable: room,
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("198.51.100.%d", len(name)+int(name[len(name)-1]))}},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: now, LastTransitionTime: now}},
		}
		_, err = c.CoreV1().Nodes().UpdateStatus(ctx, n, metav1.UpdateOptions{})
		return err == nil, fmt.Sprint(err)
	})
	lease, err := c.CoordinationV1().Leases("kube-node-lease").Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		lease = must[*coordinationv1.Lease](t)(c.CoordinationV1().Leases("kube-node-lease").Create(ctx, &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: &name, LeaseDurationSeconds: ptr.To(int32(4)), RenewTime: ptr.To(metav1.NowMicro())},
		}, metav1.CreateOptions{}))
	}
	alive, stop := context.WithCancel(ctx)
	t.Cleanup(stop)
	go func() {
		for tick := time.NewTicker(500 * time.Millisecond); ; {
			select {
			case <-alive.Done():
				tick.Stop()
				return
			case <-tick.C:
				lease.Spec.RenewTime = ptr.To(metav1.NowMicro())
				if l, err := c.CoordinationV1().Leases("kube-node-lease").Update(alive, lease, metav1.UpdateOptions{}); err == nil {
					lease = l
				}
			}
		}
	}()
	return stop
}

// pod makes a pod; change may fill its spec.
func (c *cluster) pod(t *testing.T, ns, name string, change func(*corev1.Pod)) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: map[string]string{"app": name}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "everynode.local/pause:1"}}, TerminationGracePeriodSeconds: ptr.To(int64(0))},
	}
	if change != nil {
		change(p)
	}
	return must[*corev1.Pod](t)(c.CoreV1().Pods(ns).Create(t.Context(), p, metav1.CreateOptions{}))
}

// placed waits until the pod is bound, and returns where to.
func (c *cluster) placed(t *testing.T, p *corev1.Pod) string {
	t.Helper()
	var node string
	await(t, "pod "+p.Name+" is bound", func() (bool, string) {
		now, err := c.CoreV1().Pods(p.Namespace).Get(t.Context(), p.Name, metav1.GetOptions{})
		if err != nil {
			return false, err.Error()
		}
		node = now.Spec.NodeName
		return node != "", fmt.Sprint(now.Status.Conditions)
	})
	return node
}

func cpu(quantity string) corev1.ResourceRequirements {
	return corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(quantity)}}
}
