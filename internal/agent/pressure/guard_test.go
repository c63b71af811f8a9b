package pressure

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/ptr"

	"github.com/everynode/everynode/internal/decide/eviction"
	"github.com/everynode/everynode/internal/decide/podlife"
)

const mib = 1 << 20

// house is a node in memory: its pods use memory and disk, which comes back when they leave.
type house struct {
	t      *testing.T
	events *record.FakeRecorder
	o      Options
	guard  *Guard

	mu                    sync.Mutex
	memory, disk          int64 // available without the pods, MiB of 1000
	images                int64 // unused ones, MiB
	records               int64 // of ended containers, MiB
	pods                  []*corev1.Pod
	uses                  map[types.UID]int64 // memory and disk alike, MiB
	leaves                map[types.UID]time.Duration
	evicted               []string
	reclaiming            bool
	changes, measurements int
	imagesErr, usageErr   error
}

func newHouse(t *testing.T) *house {
	h := &house{
		t: t, events: record.NewFakeRecorder(1000), memory: 1000, disk: 1000,
		uses: map[types.UID]int64{}, leaves: map[types.UID]time.Duration{},
	}
	thresholds, errs := eviction.Settings{}.Thresholds()
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	h.o = Options{
		Thresholds: thresholds, Transition: 5 * time.Minute, Machine: h, Pods: h, Usage: h.usage, DeleteImages: h.deleteImages,
		Recorder: h.events, Node: &corev1.ObjectReference{Kind: "Node", Name: "n1"}, Changed: func() { h.changes++ },
	}
	return h
}

func (h *house) add(name string, mib int64, edits ...func(*corev1.Pod)) {
	p := &corev1.Pod{}
	p.Name, p.UID, p.Status.Phase = name, types.UID(name), corev1.PodRunning
	p.Spec.Containers = []corev1.Container{{Name: "c"}}
	for _, edit := range edits {
		edit(p)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pods = append(h.pods, p)
	h.uses[p.UID] = mib
}

func (h *house) set(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

func (h *house) Observe(context.Context) (eviction.Observations, eviction.Layout) {
	h.mu.Lock()
	defer h.mu.Unlock()
	memory, disk := h.memory, h.disk-h.images-h.records
	for _, n := range h.uses {
		memory, disk = memory-n, disk-n
	}
	return eviction.Observations{
		eviction.MemoryAvailable: {Available: memory * mib, Capacity: 1000 * mib},
		eviction.NodeFsAvailable: {Available: disk * mib, Capacity: 1000 * mib},
	}, eviction.Layout{}
}

func (h *house) Pods() []*corev1.Pod {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.pods)
}

func (h *house) Evict(uid types.UID, e podlife.Eviction) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.evicted = append(h.evicted, fmt.Sprintf("%s after %d s", uid, *e.Grace))
	ended := make(chan struct{})
	go func() {
		time.Sleep(h.leaves[uid])
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.uses, uid)
		h.pods = slices.DeleteFunc(h.pods, func(p *corev1.Pod) bool { return p.UID == uid })
		close(ended)
	}()
	return ended
}

func (h *house) Reclaim(now bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reclaiming = now
	if now {
		time.AfterFunc(time.Second, func() { h.set(func() { h.records = 0 }) })
	}
}

func (h *house) deleteImages(context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.imagesErr == nil {
		h.images = 0
	}
	return h.imagesErr
}

func (h *house) usage(context.Context) (*statsapi.Summary, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.measurements++
	if h.usageErr != nil {
		return nil, h.usageErr
	}
	s := &statsapi.Summary{}
	for _, p := range h.pods {
		bytes := uint64(h.uses[p.UID] * mib)
		s.Pods = append(s.Pods, statsapi.PodStats{
			PodRef: statsapi.PodReference{UID: string(p.UID)}, Memory: &statsapi.MemoryStats{WorkingSetBytes: &bytes},
			EphemeralStorage: &statsapi.FsStats{UsedBytes: &bytes},
			VolumeStats:      []statsapi.VolumeStats{{Name: "v", FsStats: statsapi.FsStats{UsedBytes: &bytes}}},
			Containers:       []statsapi.ContainerStats{{Name: "c", Memory: &statsapi.MemoryStats{WorkingSetBytes: &bytes}}},
		})
	}
	return s, nil
}

// run has a guard work in a bubble of virtual time.
func run(t *testing.T, f func(h *house)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		guard, err := New(h.o)
		if err != nil {
			t.Fatal(err)
		}
		h.guard = guard
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = guard.Run(ctx)
		}()
		f(h)
		cancel()
		<-done
		time.Sleep(time.Hour) // pods that were leaving
	})
}

func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (h *house) want(evicted ...string) {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if diff := cmp.Diff(evicted, h.evicted); diff != "" {
		h.t.Errorf("evicted (-want +got):\n%s", diff)
	}
}

func (h *house) wantConditions(want ...corev1.NodeConditionType) {
	h.t.Helper()
	if diff := cmp.Diff(want, h.guard.Conditions(context.Background())); diff != "" {
		h.t.Errorf("conditions (-want +got):\n%s", diff)
	}
}

func (h *house) said() string {
	var list []string
	for {
		select {
		case e := <-h.events.Events:
			list = append(list, e)
		default:
			return strings.Join(list, "\n")
		}
	}
}

// TestMemory: one pod goes at a time, the greediest first, until there is enough.
func TestMemory(t *testing.T) {
	run(t, func(h *house) {
		h.set(func() { h.disk = 2000 })
		h.add("large", 400)
		h.add("larger", 450)
		h.add("critical", 100, func(p *corev1.Pod) { p.Spec.Priority = ptr.To[int32](podlife.CriticalPriority) })
		h.leaves["larger"] = 2 * time.Second
		after(time.Minute)
		h.want("larger after 1 s")
		h.wantConditions(corev1.NodeMemoryPressure)
		said := h.said()
		for _, want := range []string{
			"Normal NodeHasInsufficientMemory Node n1 status is now: NodeHasInsufficientMemory",
			"Warning EvictionThresholdMet Attempting to reclaim memory",
			"Warning Evicted The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container c was using 450Mi, request is 0, has larger consumption of memory. ",
		} {
			if !strings.Contains(said, want) {
				t.Errorf("events:\n%s\nwant %s", said, want)
			}
		}
		if v := h.guard.Refuse(h.pods[0]); v == nil {
			t.Error("a pod that asks for nothing is taken")
		}
		after(5 * time.Minute)
		h.wantConditions()
		if v := h.guard.Refuse(h.pods[0]); v != nil {
			t.Errorf("refused: %+v", v)
		}
		if said := h.said(); said != "Normal NodeHasSufficientMemory Node n1 status is now: NodeHasSufficientMemory" {
			t.Errorf("events:\n%s", said)
		}
		if h.changes != 2 || h.measurements != 1 {
			t.Errorf("%d changes of conditions, %d measurements of all pods; want 2, 1", h.changes, h.measurements)
		}
	})
}

// TestSlowLeaver: no second pod has to go while the first is still on its way.
func TestSlowLeaver(t *testing.T) {
	run(t, func(h *house) {
		h.add("a", 500)
		h.add("b", 450)
		h.leaves["a"] = 25 * time.Second
		after(20 * time.Second)
		h.want("a after 1 s")
		after(time.Minute)
		h.want("a after 1 s")
	})
}

// TestDisk: what no pod needs goes first, and may be enough.
func TestDisk(t *testing.T) {
	run(t, func(h *house) {
		h.add("p", 100)
		h.set(func() { h.images, h.records = 400, 450 })
		after(time.Minute)
		h.want()
		h.wantConditions(corev1.NodeDiskPressure)
		if !h.reclaiming {
			t.Error("records of new containers stay, although the disk was short a minute ago")
		}
		after(5 * time.Minute)
		h.wantConditions()
		if h.reclaiming {
			t.Error("records still go")
		}
	})
}

// TestDiskStaysFull although images could not even be removed: a pod has to go.
func TestDiskStaysFull(t *testing.T) {
	run(t, func(h *house) {
		h.add("large", 800)
		h.add("small", 50)
		h.set(func() { h.images, h.imagesErr = 100, errors.New("read-only file system") })
		after(time.Minute)
		h.want("large after 1 s")
	})
}

// TestUnmeasured: a pod goes even if nobody knows what it uses.
func TestUnmeasured(t *testing.T) {
	run(t, func(h *house) {
		h.add("p", 950)
		h.set(func() { h.usageErr = errors.New("no answer") })
		after(time.Minute)
		h.want("p after 1 s")
	})
}

// TestLimits: pods over their own limits go without any pressure, all at once.
func TestLimits(t *testing.T) {
	run(t, func(h *house) {
		limited := func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: ptr.To(resource.MustParse("10Mi"))}}}}
		}
		h.add("a", 11, limited)
		h.add("b", 12, limited)
		h.add("c", 9, limited)
		h.add("ended", 20, limited, func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })
		after(11 * time.Second)
		h.want("a after 1 s", "b after 1 s")
		h.wantConditions()
		if said := h.said(); !strings.Contains(said, `Warning Evicted Usage of EmptyDir volume "v" exceeds the limit "10Mi". `) {
			t.Errorf("events:\n%s", said)
		}
	})
}

// TestConditionsAtStart are known to the first who asks.
func TestConditionsAtStart(t *testing.T) {
	h := newHouse(t)
	h.memory = 10
	guard, err := New(h.o)
	if err != nil {
		t.Fatal(err)
	}
	if got := guard.Conditions(t.Context()); !slices.Equal(got, []corev1.NodeConditionType{corev1.NodeMemoryPressure}) {
		t.Errorf("conditions %v", got)
	}
}
