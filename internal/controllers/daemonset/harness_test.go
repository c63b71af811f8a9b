package daemonset

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	machine "github.com/everynode/everynode/internal/decide/daemonset"
	"github.com/everynode/everynode/test/fakeapi"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"
)

// cluster is a fake API and the controllers that run on it, inside one synctest bubble.
type cluster struct {
	t      *testing.T
	client *fake.Clientset
	writer *recordingWriter
	events *record.FakeRecorder
	stop   func()
}

func newCluster(t *testing.T, objects ...runtime.Object) *cluster {
	t.Helper()
	c := &cluster{t: t, client: fake.NewClientset(objects...), events: record.NewFakeRecorder(1000)}
	c.writer = &recordingWriter{ClientWriter: ClientWriter{Client: c.client}}
	c.start()
	return c
}

// start runs a controller, as a process that begins with nothing.
func (c *cluster) start() {
	c.t.Helper()
	controller, err := New(Options{Client: c.client, Writer: c.writer, Recorder: c.events})
	if err != nil {
		c.t.Fatal(err)
	}
	c.stop = fakeapi.Run(c.t, controller)
}

func (c *cluster) restart() {
	c.stop()
	c.start()
}

// rest lets everything happen that does not wait for more than a while.
func (c *cluster) rest() {
	for range 30 {
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
	}
}

func (c *cluster) pods() []corev1.Pod {
	c.t.Helper()
	list, err := c.client.CoreV1().Pods("ops").List(context.Background(), metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return list.Items
}

// nodesWithPods lists the nodes that have a pod, "n1 n2 n2" for two on n2.
func (c *cluster) nodesWithPods() string {
	var nodes []string
	for _, p := range c.pods() {
		nodes = append(nodes, machine.TargetNode(&p))
	}
	slices.Sort(nodes)
	return strings.Join(nodes, " ")
}

func (c *cluster) daemonSet() *appsv1.DaemonSet {
	c.t.Helper()
	ds, err := c.client.AppsV1().DaemonSets("ops").Get(context.Background(), "agent", metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return ds
}

// change updates the DaemonSet's spec.
func (c *cluster) change(f func(*appsv1.DaemonSet)) {
	c.t.Helper()
	ds := c.daemonSet()
	ds.Generation++
	f(ds)
	if _, err := c.client.AppsV1().DaemonSets("ops").Update(context.Background(), ds, metav1.UpdateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) setImage(image string) {
	c.change(func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.Containers[0].Image = image })
}

// makeReady is the agents: every pod that is not ready becomes so.
func (c *cluster) makeReady() {
	c.t.Helper()
	for _, p := range c.pods() {
		if len(p.Status.Conditions) == 0 {
			p.Status.Phase = corev1.PodRunning
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
			if _, err := c.client.CoreV1().Pods("ops").UpdateStatus(context.Background(), &p, metav1.UpdateOptions{}); err != nil {
				c.t.Fatal(err)
			}
		}
	}
}

// revisions lists "number=hash label" of the stored history, in order of number.
func (c *cluster) revisions() []appsv1.ControllerRevision {
	c.t.Helper()
	list, err := c.client.AppsV1().ControllerRevisions("ops").List(context.Background(), metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	slices.SortFunc(list.Items, func(a, b appsv1.ControllerRevision) int { return int(a.Revision - b.Revision) })
	return list.Items
}

// reasons drains the recorded events and counts them by reason.
func (c *cluster) reasons() map[string]int {
	counts := map[string]int{}
	for {
		select {
		case e := <-c.events.Events:
			counts[strings.Fields(e)[1]]++
		default:
			return counts
		}
	}
}

// recordingWriter is the Writer under test conditions: it gives pods what the API gives them, notes every write
// and fails as it is told.
type recordingWriter struct {
	ClientWriter

	mu               sync.Mutex
	uids             int
	created, deleted []string
	statuses         int
	// create and status are asked before each write. With an error and after set, the write happens and the error
	// is the answer.
	create func(*corev1.Pod) (err error, after bool)
	status func() error
}

func (w *recordingWriter) CreatePod(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	w.mu.Lock()
	w.uids++
	pod.UID = types.UID(fmt.Sprintf("uid-%d", w.uids))
	create := w.create
	w.mu.Unlock()
	pod.CreationTimestamp = metav1.Now()
	var err error
	var after bool
	if create != nil {
		err, after = create(pod)
	}
	if err != nil && !after {
		return nil, err
	}
	created, cerr := w.ClientWriter.CreatePod(ctx, pod)
	if cerr != nil {
		return nil, cerr
	}
	w.mu.Lock()
	w.created = append(w.created, pod.Name)
	w.mu.Unlock()
	return created, err
}

func (w *recordingWriter) DeletePod(ctx context.Context, namespace, name string, o metav1.DeleteOptions) error {
	live, err := w.Client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if o.Preconditions == nil || o.Preconditions.UID == nil || *o.Preconditions.UID != live.UID {
		return apierrors.NewConflict(corev1.Resource("pods"), name, fmt.Errorf("the UID does not match"))
	}
	w.mu.Lock()
	w.deleted = append(w.deleted, name)
	w.mu.Unlock()
	return w.ClientWriter.DeletePod(ctx, namespace, name, o)
}

func (w *recordingWriter) UpdateDaemonSetStatus(ctx context.Context, ds *appsv1.DaemonSet) (*appsv1.DaemonSet, error) {
	w.mu.Lock()
	w.statuses++
	status := w.status
	w.mu.Unlock()
	if status != nil {
		if err := status(); err != nil {
			return nil, err
		}
	}
	return w.ClientWriter.UpdateDaemonSetStatus(ctx, ds)
}

// writes returns what was written since the last call: creates, deletes, statuses.
func (w *recordingWriter) writes() (created, deleted []string, statuses int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	created, deleted, statuses = w.created, w.deleted, w.statuses
	w.created, w.deleted, w.statuses = nil, nil, 0
	return created, deleted, statuses
}

func testDaemonSet() *appsv1.DaemonSet {
	labels := map[string]string{"app": "agent"}
	limit := int32(2)
	return &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ops", Name: "agent", UID: "ds-uid", Generation: 1},
		Spec: appsv1.DaemonSetSpec{
			Selector:             &metav1.LabelSelector{MatchLabels: labels},
			RevisionHistoryLimit: &limit,
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "agent", Image: "agent:1"}}},
			},
			UpdateStrategy: appsv1.DaemonSetUpdateStrategy{
				Type:          appsv1.RollingUpdateDaemonSetStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDaemonSet{},
			},
		},
	}
}

func testNode(name string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourcePods: resource.MustParse("110"),
		}},
	}
}

func inBubble(t *testing.T, objects []runtime.Object, f func(*cluster)) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, objects...)
		defer func() { c.stop() }()
		f(c)
	})
}

func threeNodes(more ...runtime.Object) []runtime.Object {
	return append([]runtime.Object{testNode("n1"), testNode("n2"), testNode("n3")}, more...)
}
