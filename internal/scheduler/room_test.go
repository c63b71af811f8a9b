package scheduler

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"

	"github.com/everynode/everynode/internal/decide/placement"
)

// ledgerRoom is a Room over a plain ledger.
type ledgerRoom struct {
	sync.Mutex
	*placement.Ledger
	freed func()
}

func (r *ledgerRoom) Outstanding(node string, counted func(string) bool) (placement.Demand, int64) {
	r.Lock()
	defer r.Unlock()
	return r.Ledger.Outstanding(node, counted)
}

func (r *ledgerRoom) Reserve(key, node string, d *placement.Demand) []placement.Reason {
	r.Lock()
	defer r.Unlock()
	if why := r.Explain(node, d); len(why) > 0 {
		return why
	}
	r.Ledger.Reserve(key, node, d)
	return nil
}

func (r *ledgerRoom) Release(key string) {
	r.Lock()
	r.Ledger.Release(key)
	r.Unlock()
	r.freed()
}

func (r *ledgerRoom) OnFreed(f func()) { r.freed = f }

func asking(name, cpu string, port int32) *corev1.Pod {
	c := corev1.Container{Name: "c", Image: "i", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}}}
	if port > 0 {
		c.Ports = []corev1.ContainerPort{{ContainerPort: port, HostPort: port}}
	}
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name, UID: "1"}, Spec: corev1.PodSpec{
		SchedulerName: corev1.DefaultSchedulerName, Containers: []corev1.Container{c}}}
}

func smallNode() *corev1.Node {
	rl := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourcePods: resource.MustParse("3")}
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: corev1.NodeStatus{Allocatable: rl, Capacity: rl}}
}

func TestPromisedRoomIsTaken(t *testing.T) {
	for name, tc := range map[string]struct {
		promised, running, pod *corev1.Pod
		want                   string
	}{
		"nothing promised":              {nil, nil, asking("p", "2", 0), ""},
		"room beside the promise":       {asking("d", "1", 0), nil, asking("p", "1", 0), ""},
		"cpu":                           {asking("d", "1", 0), nil, asking("p", "1500m", 0), "Insufficient cpu"},
		"port":                          {asking("d", "0", 80), nil, asking("p", "0", 80), "80/TCP is promised"},
		"promised to a pod it counts":   {asking("d", "1", 0), asking("d", "1", 0), asking("p", "1", 0), ""},
		"promised beside a running pod": {asking("d", "1", 0), asking("e", "1", 0), asking("p", "500m", 0), "Insufficient cpu"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &ledgerRoom{Ledger: placement.NewLedger()}
			node := framework.NewNodeInfo()
			if tc.running != nil {
				node = framework.NewNodeInfo(tc.running)
			}
			node.SetNode(smallNode())
			if tc.promised != nil {
				r.Ledger.Reserve(keyOf(tc.promised), "n", placement.DemandOf(&tc.promised.Spec))
			}
			s := &sharedRoom{room: r, refused: map[string]*corev1.Pod{}}
			status := s.Filter(t.Context(), nil, tc.pod, node)
			if got := status.Message(); tc.want == "" != status.IsSuccess() || !strings.Contains(got, tc.want) {
				t.Errorf("%v %q, want %q", status.Code(), got, tc.want)
			}
			if !status.IsSuccess() && (status.Code() != fwk.Unschedulable || len(s.refused) != 1) {
				t.Errorf("%v, remembered %v: it must be tried again", status.Code(), s.refused)
			}
		})
	}
}

// A pod waits while its room is promised to another, and is bound when the promise is taken back, without any event
// that the scheduler's queue would see.
func TestWaitsForPromises(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	client := fake.NewClientset(smallNode())
	room := &ledgerRoom{Ledger: placement.NewLedger()}
	room.SetNode(placement.NodeOf(smallNode()))
	room.Ledger.Reserve("a/daemon", "n", placement.DemandOf(&asking("daemon", "2", 0).Spec))

	shared := informers.NewSharedInformerFactory(client, 0)
	s, err := newScheduler(ctx, client, shared, room)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	if _, err := client.CoreV1().Pods("a").Create(ctx, asking("bare", "1", 0), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, "the pod is said to be unschedulable", func() bool { return did(client, "patch", "status") })
	if did(client, "create", "binding") {
		t.Error("the pod was given room that was promised")
	}
	room.Release("a/daemon")
	await(t, "the pod is bound, now that the promise was taken back", func() bool { return did(client, "create", "binding") })
	if _, pods := room.Outstanding("n", func(string) bool { return false }); pods != 1 {
		t.Errorf("%d promises to the bound pod, want 1", pods)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	shared.Shutdown()
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	if err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
		return is(), nil
	}); err != nil {
		t.Fatalf("awaiting that %s: %v", what, err)
	}
}

// did says whether the API was asked to do something with a pod; the fake one does not act on bindings.
func did(client *fake.Clientset, verb, subresource string) bool {
	return slices.ContainsFunc(client.Actions(), func(a clienttesting.Action) bool {
		return a.Matches(verb, "pods/"+subresource)
	})
}
