package pods

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientset "k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/everynode/everynode/internal/agent/cri/fake"
	"github.com/everynode/everynode/internal/agent/objects"
	"github.com/everynode/everynode/internal/agent/volumes"
)

// node is a manager between an API in memory and a runtime in memory. It must be
// made inside a synctest bubble.
type node struct {
	t       *testing.T
	api     *clientset.Clientset
	runtime *fake.Runtime
	images  *fake.Images
	options Options
	manager *Manager
	stop    func()

	mu      sync.Mutex
	version int
	events  []string
	// writes are the statuses that the API took, in short.
	writes []string
	// refuse is answered to status writes, while it is set.
	refuse error
	// refuseList is answered to lists.
	refuseList error
	// refuseDelete is answered to deletes.
	refuseDelete error
}

var podsResource = corev1.SchemeGroupVersion.WithResource("pods")

func newNode(t *testing.T) *node {
	n := &node{t: t, api: clientset.NewClientset(), runtime: fake.New(), images: fake.NewImages("image"), version: 100}
	n.runtime.SandboxTime, n.runtime.CreateTime, n.runtime.StartTime = 100*time.Millisecond, 10*time.Millisecond, 30*time.Millisecond
	n.api.PrependReactor("update", "pods", n.updateStatus)
	n.api.PrependReactor("delete", "pods", n.delete)
	n.api.PrependReactor("list", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.refuseList != nil, nil, n.refuseList
	})
	dir := t.TempDir()
	n.options = Options{
		NodeName: "n1", RootDir: dir + "/pods", LogDir: dir + "/logs", LogLinkDir: dir + "/links",
		Client: n.api, Runtime: n.runtime, Images: n.images, Volumes: noVolumes{}, Objects: noObjects{}, Recorder: n,
		NodeFacts: func() volumes.Facts { return volumes.Facts{NodeName: "n1", HostIPs: []string{"192.0.2.1"}} },
	}
	return n
}

// start runs a new manager on what API and runtime have.
func (n *node) start() {
	n.t.Helper()
	m, err := New(n.options)
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = m.Run(ctx)
	}()
	n.manager = m
	n.stop = func() { cancel(); <-done }
}

func (n *node) restart() {
	n.stop()
	n.start()
}

// updateStatus stores a status as the API server does: by resourceVersion.
func (n *node) updateStatus(a clienttesting.Action) (bool, runtime.Object, error) {
	if a.GetSubresource() != "status" {
		return false, nil, nil
	}
	sent := a.(clienttesting.UpdateAction).GetObject().(*corev1.Pod)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.refuse != nil {
		return true, nil, n.refuse
	}
	stored, err := n.stored(sent.Namespace, sent.Name)
	if err != nil {
		return true, nil, err
	}
	if stored.ResourceVersion != sent.ResourceVersion {
		return true, nil, apierrors.NewConflict(corev1.Resource("pods"), sent.Name, errors.New("changed meanwhile"))
	}
	stored.Status = *sent.Status.DeepCopy()
	n.writes = append(n.writes, brief(stored))
	return true, stored.DeepCopy(), n.store(stored)
}

func (n *node) stored(ns, name string) (*corev1.Pod, error) {
	obj, err := n.api.Tracker().Get(podsResource, ns, name)
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.Pod).DeepCopy(), nil
}

func (n *node) store(pod *corev1.Pod) error {
	n.version++
	pod.ResourceVersion = strconv.Itoa(n.version)
	return n.api.Tracker().Update(podsResource, pod, pod.Namespace)
}

// delete honours the UID precondition and the grace period.
func (n *node) delete(a clienttesting.Action) (bool, runtime.Object, error) {
	d := a.(clienttesting.DeleteActionImpl)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.refuseDelete != nil {
		return true, nil, n.refuseDelete
	}
	stored, err := n.stored(d.Namespace, d.Name)
	if err != nil {
		return true, nil, err
	}
	if p := d.DeleteOptions.Preconditions; p != nil && p.UID != nil && *p.UID != stored.UID {
		return true, nil, apierrors.NewConflict(corev1.Resource("pods"), d.Name, errors.New("UID differs"))
	}
	if g := d.DeleteOptions.GracePeriodSeconds; g != nil && *g > 0 {
		at := metav1.NewTime(time.Now().Add(time.Duration(*g) * time.Second))
		stored.DeletionTimestamp, stored.DeletionGracePeriodSeconds = &at, g
		return true, nil, n.store(stored)
	}
	return false, nil, nil
}

// change edits a pod as another client would.
func (n *node) change(name string, edit func(*corev1.Pod)) {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	pod, err := n.stored("default", name)
	if err != nil {
		n.t.Fatal(err)
	}
	edit(pod)
	if err := n.store(pod); err != nil {
		n.t.Fatal(err)
	}
}

// create binds a pod to the node.
func (n *node) create(pod *corev1.Pod) *corev1.Pod {
	n.t.Helper()
	n.mu.Lock()
	n.version++
	pod.Namespace, pod.UID, pod.ResourceVersion = "default", types.UID("uid-"+pod.Name+strconv.Itoa(n.version)), strconv.Itoa(n.version)
	n.mu.Unlock()
	pod.Generation, pod.CreationTimestamp, pod.Spec.NodeName, pod.Status.Phase = 1, metav1.Now(), "n1", corev1.PodPending
	if pod.Spec.RestartPolicy == "" {
		pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
	}
	grace := int64(30)
	pod.Spec.TerminationGracePeriodSeconds = &grace
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if list[i].Image == "" {
				list[i].Image = "image:latest"
			}
			if list[i].ImagePullPolicy == "" {
				list[i].ImagePullPolicy = corev1.PullIfNotPresent
			}
		}
	}
	n.images.Add("image:latest", &runtimeapi.Image{Id: "sha256:1"})
	if _, err := n.api.CoreV1().Pods("default").Create(context.Background(), pod, metav1.CreateOptions{}); err != nil {
		n.t.Fatal(err)
	}
	return pod
}

func (n *node) remove(name string, grace int64) {
	n.t.Helper()
	if err := n.api.CoreV1().Pods("default").Delete(context.Background(), name, metav1.DeleteOptions{GracePeriodSeconds: &grace}); err != nil {
		n.t.Fatal(err)
	}
}

// get is the pod as the API has it, or nil.
func (n *node) get(name string) *corev1.Pod {
	n.mu.Lock()
	defer n.mu.Unlock()
	pod, err := n.stored("default", name)
	if err != nil {
		return nil
	}
	return pod
}

// state is the pod in the API in short, or "gone".
func (n *node) state(name string) string {
	if pod := n.get(name); pod != nil {
		return brief(pod)
	}
	return "gone"
}

func (n *node) log() (writes, events []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.writes...), append([]string(nil), n.events...)
}

// brief is "Running c:running#1*", with # the restart count and * for ready.
func brief(pod *corev1.Pod) string {
	text := string(pod.Status.Phase)
	if pod.Status.Reason != "" {
		text += "/" + pod.Status.Reason
	}
	for _, c := range allStatuses(&pod.Status) {
		text += " " + c.Name + ":"
		switch {
		case c.State.Running != nil:
			text += "running"
		case c.State.Waiting != nil:
			text += c.State.Waiting.Reason
		case c.State.Terminated != nil:
			text += fmt.Sprintf("%s(%d)", c.State.Terminated.Reason, c.State.Terminated.ExitCode)
		}
		if c.RestartCount > 0 {
			text += fmt.Sprintf("#%d", c.RestartCount)
		}
		if c.Ready {
			text += "*"
		}
	}
	return text
}

// Event and its brothers make node an EventRecorder.
func (n *node) Event(o runtime.Object, eventType, reason, message string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.events = append(n.events, eventType+" "+reason+" "+o.(*corev1.ObjectReference).FieldPath+": "+message)
}

func (n *node) Eventf(o runtime.Object, eventType, reason, format string, args ...any) {
	n.Event(o, eventType, reason, fmt.Sprintf(format, args...))
}

func (n *node) AnnotatedEventf(o runtime.Object, _ map[string]string, eventType, reason, format string, args ...any) {
	n.Event(o, eventType, reason, fmt.Sprintf(format, args...))
}

type noVolumes struct{}

func (noVolumes) Setup(context.Context, *corev1.Pod, volumes.Facts) (map[string]volumes.Volume, error) {
	return map[string]volumes.Volume{}, nil
}
func (noVolumes) MountImage(_ context.Context, _ types.UID, volume, ref string) (volumes.Volume, error) {
	return volumes.Volume{Path: "/images/" + volume + "/" + ref, ReadOnly: true}, nil
}
func (noVolumes) Update(*corev1.Pod) {}
func (noVolumes) Mounts(*corev1.Pod, *corev1.Container, map[string]volumes.Volume, func(string) string) ([]*runtimeapi.Mount, func(), error) {
	return nil, func() {}, nil
}
func (noVolumes) Teardown(context.Context, types.UID) error { return nil }
func (noVolumes) Orphans(func(types.UID) bool)              {}

type noObjects struct{}

// oneMap has a ConfigMap as soon as it is told to appear.
type oneMap struct {
	noObjects
	mu     sync.Mutex
	there  bool
	notify func(objects.Ref)
}

func (o *oneMap) Subscribe(f func(objects.Ref)) func() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.notify = f
	return func() {}
}

func (o *oneMap) appear() {
	o.mu.Lock()
	o.there = true
	notify := o.notify
	o.mu.Unlock()
	notify(objects.Ref{Kind: objects.ConfigMap, Namespace: "default", Name: "m"})
}

func (o *oneMap) ConfigMap(ctx context.Context, ns, name string) (*corev1.ConfigMap, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.there {
		return &corev1.ConfigMap{Data: map[string]string{"k": "v"}}, nil
	}
	return o.noObjects.ConfigMap(ctx, ns, name)
}

func (noObjects) ConfigMap(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
	return nil, apierrors.NewNotFound(corev1.Resource("configmaps"), name)
}

func (noObjects) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	return nil, apierrors.NewNotFound(corev1.Resource("secrets"), name)
}

func (noObjects) Token(_ context.Context, _, name string, _ *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	return nil, apierrors.NewNotFound(corev1.Resource("serviceaccounts"), name)
}
