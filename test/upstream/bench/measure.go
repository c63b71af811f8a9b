package main

import (
	"context"
	"fmt"
	"runtime"
	"syscall"
	"time"

	"github.com/everynode/everynode/internal/controllers/daemonset"
	machine "github.com/everynode/everynode/internal/decide/daemonset"
	"github.com/everynode/everynode/test/upstream/memory"
	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/klog/v2"
	upstreamcontroller "k8s.io/kubernetes/pkg/controller/daemon"
)

// cluster is the API with one DaemonSet, and a watch on its status.
type cluster struct {
	api      *memory.API
	statuses watch.Interface
	created  chan struct{} // a token for each pod that a controller has created since it was asked for
	writes   int
	nodes    int
}

// measure runs one controller ("ours", "upstream") on n nodes. With idle there is no DaemonSet, and nothing is measured
// but memory.
func measure(who string, n, events int, idle bool) result {
	utilruntime.ErrorHandlers = nil // they print what upstream retries
	ctx, cancel := context.WithCancel(klog.NewContext(context.Background(), logr.Discard()))
	defer cancel()
	c := &cluster{api: memory.New(), created: make(chan struct{}, 1)}
	c.api.Started = c.started
	before := heap()
	for range n {
		c.join()
	}
	client := c.api.Client()
	factory := informers.NewSharedInformerFactory(client, 0)
	must(start(ctx, who, client, factory))
	c.observe(ctx, client)
	r := result{Nodes: n}
	settle()
	if !idle {
		r.Rollout, r.RolloutPerPod = c.rollout(n)
		r.StatusWrites = c.writes
		r.Idle = c.inBursts(events, 4, func(int) {})
		r.Flip = c.flips(events)
		r.JoinCreated = c.joinsCreated(events)
		r.Join = c.joins(events)
		r.FlipAtOnce = c.flipsAtOnce(1000)
	}
	settle()
	c.api.Forget()
	r.BytesPerNode = int(heap()-before) / c.nodes
	runtime.KeepAlive(factory)
	return r
}

// start runs the controller as its product does, events included.
func start(ctx context.Context, who string, client kubernetes.Interface, factory informers.SharedInformerFactory) error {
	apps, core := factory.Apps().V1(), factory.Core().V1()
	var run func()
	switch who {
	case "ours":
		b := record.NewBroadcaster(record.WithContext(ctx))
		b.StartRecordingToSink(&coreclient.EventSinkImpl{Interface: client.CoreV1().Events("")})
		c, err := daemonset.New(daemonset.Options{
			Client:   client,
			Recorder: b.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "daemonset-controller"}),
		})
		if err != nil {
			return err
		}
		run = func() { must(c.Run(ctx)) }
	case "upstream":
		c, err := upstreamcontroller.NewDaemonSetsController(ctx, apps.DaemonSets(), apps.ControllerRevisions(), core.Pods(), core.Nodes(),
			client, flowcontrol.NewBackOff(time.Second, 15*time.Minute))
		if err != nil {
			return err
		}
		run = func() { c.Run(ctx, 2) }
	default:
		return fmt.Errorf("-measure is %q, want ours or upstream", who)
	}
	factory.StartWithContext(ctx)
	factory.WaitForCacheSyncWithContext(ctx)
	go run()
	return nil
}

// observe watches the DaemonSet.
func (c *cluster) observe(ctx context.Context, client kubernetes.Interface) {
	list, err := client.AppsV1().DaemonSets("").List(ctx, metav1.ListOptions{})
	must(err)
	c.statuses, err = client.AppsV1().DaemonSets("").Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	must(err)
}

// await counts status writes until one has so many pods ready.
func (c *cluster) await(ready int) {
	for e := range c.statuses.ResultChan() {
		c.writes++
		if e.Object.(*appsv1.DaemonSet).Status.NumberReady == int32(ready) {
			return
		}
	}
}

// rollout creates the DaemonSet and returns the time, and the CPU time per pod, until all pods are ready.
func (c *cluster) rollout(n int) (took, perPod time.Duration) {
	began, cpu := time.Now(), cpuTime()
	c.api.Put(daemonSet())
	c.await(n)
	return time.Since(began), (cpuTime() - cpu) / time.Duration(n)
}

// flips makes one pod after another unready, then ready, each time until the status says so.
func (c *cluster) flips(events int) time.Duration {
	pods := c.api.Pods()
	return c.inBursts(events, 4, func(i int) {
		p := pods[i/2%len(pods)].DeepCopy()
		status, want := corev1.ConditionFalse, len(pods)-1
		if i%2 == 1 {
			status, want = corev1.ConditionTrue, len(pods)
		}
		p.Status.Conditions[0].Status = status
		c.api.Put(p)
		c.await(want)
	})
}

// flipsAtOnce makes many pods unready as fast as the API takes it, until the status says so of all.
func (c *cluster) flipsAtOnce(events int) time.Duration {
	pods := c.api.Pods()
	events = min(events, len(pods))
	settle()
	cpu := cpuTime()
	for _, p := range pods[:events] {
		p = p.DeepCopy()
		p.Status.Conditions[0].Status = corev1.ConditionFalse
		c.api.Put(p)
	}
	c.await(len(pods) - events)
	return (cpuTime() - cpu) / time.Duration(events)
}

// joins adds nodes one by one, each until its pod is counted as ready.
func (c *cluster) joins(events int) time.Duration {
	pods := c.api.CountPods()
	return c.inBursts(events, 2, func(i int) {
		c.join()
		c.await(pods + i + 1)
	})
}

// joinsCreated adds nodes one after another, each when the pod of the one before has been created. Status writes and
// all else that goes on meanwhile is counted.
func (c *cluster) joinsCreated(events int) time.Duration {
	want := c.api.CountPods() + events
	settle()
	select {
	case <-c.created: // left over from before
	default:
	}
	cpu := cpuTime()
	for range events {
		c.join()
		<-c.created
	}
	cpu = cpuTime() - cpu
	c.await(want)
	return cpu / time.Duration(events)
}

// inBursts returns the CPU time per event. A controller may write statuses that follow each other closely with a
// pause between, and to wake an idle process up costs more than what is to be measured: so there is a rest after
// every few events, which is counted, for what a controller does after the last status is.
func (c *cluster) inBursts(events, size int, f func(int)) time.Duration {
	settle()
	cpu := cpuTime()
	for i := range events {
		f(i)
		if (i+1)%size == 0 {
			time.Sleep(300 * time.Millisecond)
		}
	}
	return (cpuTime() - cpu) / time.Duration(events)
}

// join stores one more node.
func (c *cluster) join() {
	c.nodes++
	n := &corev1.Node{}
	n.Name = fmt.Sprintf("node-%06d", c.nodes)
	n.Labels = map[string]string{corev1.LabelOSStable: "linux", corev1.LabelHostname: n.Name}
	n.Status.Allocatable = corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("8Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	c.api.Put(n)
}

// started is the pod as its node reports it running and ready; one that waits for a scheduler is bound at once.
func (c *cluster) started(stored *corev1.Pod) *corev1.Pod {
	select {
	case c.created <- struct{}{}:
	default:
	}
	next := *stored // what is not set here is shared: neither version is ever changed
	p := &next
	p.Spec.NodeName = machine.TargetNode(p)
	p.Status.Phase = corev1.PodRunning
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
	return p
}

func daemonSet() *appsv1.DaemonSet {
	labels := map[string]string{"app": "fluentd"}
	one, zero, limit := intstr.FromInt32(1), intstr.FromInt32(0), int32(10)
	ds := &appsv1.DaemonSet{Spec: appsv1.DaemonSetSpec{
		Selector: &metav1.LabelSelector{MatchLabels: labels}, RevisionHistoryLimit: &limit,
		Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "fluentd"}}, RestartPolicy: corev1.RestartPolicyAlways},
		},
		UpdateStrategy: appsv1.DaemonSetUpdateStrategy{
			Type:          appsv1.RollingUpdateDaemonSetStrategyType,
			RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxUnavailable: &one, MaxSurge: &zero},
		},
	}}
	ds.Namespace, ds.Name, ds.UID = "default", "fluentd", "ds"
	return ds
}

// settle lets what goes on after the last status end: it returns when the process has been idle for two seconds, or
// does not become so.
func settle() {
	for idle, tries := 0, 0; idle < 4 && tries < 120; tries++ {
		cpu := cpuTime()
		time.Sleep(500 * time.Millisecond)
		if idle++; cpuTime()-cpu > 5*time.Millisecond {
			idle = 0
		}
	}
}

// heap is what is in use after a collection.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func cpuTime() time.Duration {
	var r syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &r))
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func must(err error) {
	if err != nil {
		fail(err)
	}
}
