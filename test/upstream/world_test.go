package upstream

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/everynode/everynode/internal/controllers/daemonset"
	machine "github.com/everynode/everynode/internal/decide/daemonset"
	"github.com/everynode/everynode/test/upstream/memory"
	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/klog/v2"
	upstreamcontroller "k8s.io/kubernetes/pkg/controller/daemon"
)

// start makes a controller and returns what runs it until its context ends.
type start func(context.Context, kubernetes.Interface, informers.SharedInformerFactory) (run func(context.Context), err error)

func ours(_ context.Context, client kubernetes.Interface, _ informers.SharedInformerFactory) (func(context.Context), error) {
	c, err := daemonset.New(daemonset.Options{Client: client})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) {
		if err := c.Run(ctx); err != nil {
			panic(err)
		}
	}, nil
}

// theirs is upstream's controller as kube-controller-manager runs it.
func theirs(ctx context.Context, client kubernetes.Interface, factory informers.SharedInformerFactory) (func(context.Context), error) {
	c, err := upstreamcontroller.NewDaemonSetsController(ctx,
		factory.Apps().V1().DaemonSets(), factory.Apps().V1().ControllerRevisions(),
		factory.Core().V1().Pods(), factory.Core().V1().Nodes(),
		client, flowcontrol.NewBackOff(time.Second, 15*time.Minute))
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) { c.Run(ctx, 2) }, nil
}

// world is a cluster in a bubble of virtual time: an API in memory, one controller, and a scheduler, nodes and
// garbage collectors, which do what these tests are not about.
type world struct {
	api    *memory.API
	client kubernetes.Interface
	uids   int // of DaemonSets
}

// inWorld runs f in a new world under the controller.
func inWorld(t *testing.T, controller start, f func(*world)) {
	// They print, and sleep by a clock that all bubbles share.
	defer func(all []utilruntime.ErrorHandler) { utilruntime.ErrorHandlers = all }(utilruntime.ErrorHandlers)
	utilruntime.ErrorHandlers = nil
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(klog.NewContext(context.Background(), logr.Discard()))
		w := &world{api: memory.New()}
		w.client = w.api.Client()
		factory := informers.NewSharedInformerFactory(w.client, 0)
		run, err := controller(ctx, w.client, factory)
		if err != nil {
			t.Fatal(err)
		}
		factory.StartWithContext(ctx)
		var running sync.WaitGroup
		running.Go(func() { run(ctx) })
		defer func() {
			cancel()
			running.Wait()
			factory.Shutdown()
		}()
		f(w)
	})
}

// rest lets everything happen that will: it ends when nothing has for four minutes.
func (w *world) rest() {
	for quiet := time.Duration(0); quiet < 4*time.Minute; {
		before := w.api.Version()
		synctest.Wait()
		w.play()
		synctest.Wait()
		nap := max(10*time.Millisecond, quiet/2)
		time.Sleep(nap)
		quiet += nap
		if w.api.Version() != before {
			quiet = 0
		}
	}
}

// play is one turn of everyone else.
func (w *world) play() {
	nodes := map[string]bool{}
	for _, n := range w.api.Nodes() {
		nodes[n.Name] = true
	}
	for _, r := range w.api.Revisions() {
		if w.ownerGone(r) {
			w.api.RemoveRevision(r.Namespace, r.Name)
		}
	}
	for _, p := range w.api.Pods() {
		switch {
		case w.ownerGone(p):
			w.api.RemovePod(p.Namespace, p.Name)
		case p.DeletionTimestamp != nil: // its containers have ended
			w.api.RemovePod(p.Namespace, p.Name)
		case p.Spec.NodeName == "" && nodes[machine.TargetNode(p)]:
			w.changePod(p, func(p *corev1.Pod) { p.Spec.NodeName = machine.TargetNode(p) })
		case p.Spec.NodeName == "":
		case !nodes[p.Spec.NodeName]:
			w.api.RemovePod(p.Namespace, p.Name)
		case p.Status.Phase == corev1.PodPending:
			w.changePod(p, ready(p.Spec.Containers[0].Image != brokenImage))
		}
	}
}

// ownerGone says whether the garbage collector would take the object.
func (w *world) ownerGone(o metav1.Object) bool {
	owner, ds := metav1.GetControllerOfNoCopy(o), w.daemonSet()
	return owner != nil && (ds == nil || ds.UID != owner.UID)
}

// brokenImage starts and never becomes ready.
const brokenImage = "agent:broken"

func ready(is bool) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		status := corev1.ConditionFalse
		if is {
			status = corev1.ConditionTrue
		}
		p.Status.Phase = corev1.PodRunning
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status, LastTransitionTime: metav1.Now()}}
	}
}

func (w *world) changePod(p *corev1.Pod, f func(*corev1.Pod)) {
	p = p.DeepCopy()
	f(p)
	w.api.Put(p)
}

// daemonSet is ops/agent, nil when there is none.
func (w *world) daemonSet() *appsv1.DaemonSet { return w.api.DaemonSet("ops", "agent") }

// change updates the DaemonSet, and counts its template's generations as the API does.
func (w *world) change(f func(*appsv1.DaemonSet)) {
	before := w.daemonSet()
	ds := before.DeepCopy()
	f(ds)
	if !equality.Semantic.DeepEqual(before.Spec.Template, ds.Spec.Template) {
		n, err := strconv.Atoi(ds.Annotations[appsv1.DeprecatedTemplateGeneration])
		if err != nil {
			panic(err)
		}
		ds.Annotations[appsv1.DeprecatedTemplateGeneration] = strconv.Itoa(n + 1)
	}
	w.api.Put(ds)
}

// create stores a DaemonSet that is like another, under a new UID.
func (w *world) create(like *appsv1.DaemonSet) {
	w.uids++
	ds := like.DeepCopy()
	ds.UID = types.UID(fmt.Sprintf("ds-%d", w.uids))
	ds.DeletionTimestamp = nil
	ds.ResourceVersion, ds.Status = "", appsv1.DaemonSetStatus{}
	ds.CreationTimestamp = metav1.Time{}
	// No template generation comes twice: to both controllers a pod that has it is up to date, whatever its hash.
	ds.Annotations = map[string]string{appsv1.DeprecatedTemplateGeneration: strconv.Itoa(100 * w.uids)}
	w.api.Put(ds)
}

// podsOn lists the DaemonSet's pods of a node that are not ending.
func (w *world) podsOn(node string) []*corev1.Pod {
	var all []*corev1.Pod
	for _, p := range w.api.Pods() {
		if ds := w.daemonSet(); ds != nil && metav1.IsControlledBy(p, ds) && machine.TargetNode(p) == node && p.DeletionTimestamp == nil {
			all = append(all, p)
		}
	}
	return all
}

// view is what is compared of a world at rest: all that both controllers promise, but for the pods' names.
type view struct {
	Pods      map[string][]podView // by node
	Status    appsv1.DaemonSetStatus
	Revisions []revisionView
}

type podView struct {
	Labels, Annotations map[string]string
	Owners              []metav1.OwnerReference
	Spec                corev1.PodSpec
	Phase               corev1.PodPhase
	Ready               bool
}

type revisionView struct {
	Name, Data          string
	Number              int64
	Labels, Annotations map[string]string
	Owners              []metav1.OwnerReference
}

func (w *world) view() view {
	v := view{Pods: map[string][]podView{}}
	for _, p := range w.api.Pods() {
		v.Pods[machine.TargetNode(p)] = append(v.Pods[machine.TargetNode(p)], podView{
			Labels: p.Labels, Annotations: p.Annotations, Owners: p.OwnerReferences, Spec: p.Spec, Phase: p.Status.Phase,
			Ready: len(p.Status.Conditions) > 0 && p.Status.Conditions[0].Status == corev1.ConditionTrue,
		})
	}
	for _, pods := range v.Pods {
		slices.SortFunc(pods, comparePods)
	}
	if ds := w.daemonSet(); ds != nil {
		v.Status = ds.Status
	}
	for _, r := range w.api.Revisions() {
		v.Revisions = append(v.Revisions, revisionView{
			Name: r.Name, Data: string(r.Data.Raw), Number: r.Revision,
			Labels: r.Labels, Annotations: r.Annotations, Owners: r.OwnerReferences,
		})
	}
	return v
}

func comparePods(a, b podView) int {
	key := func(p podView) string {
		return fmt.Sprint(len(p.Owners), p.Labels[appsv1.ControllerRevisionHashLabelKey], p.Labels["pod-template-generation"], p.Ready)
	}
	return cmp.Compare(key(a), key(b))
}
