package scheduler

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
)

func pod(name string, phase corev1.PodPhase) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name}, Status: corev1.PodStatus{Phase: phase}}
}

func podNames(pods []*corev1.Pod, err error) string {
	var all []string
	for _, p := range pods {
		all = append(all, p.Name)
	}
	slices.Sort(all)
	return fmt.Sprint(all, err)
}

// What the scheduler sees of the shared pods must equal what its own field selector would show it.
func TestViewShowsLivePodsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(pod("done", corev1.PodSucceeded), pod("failed", corev1.PodFailed), pod("pending", corev1.PodPending), pod("new", ""))
		ctx, stop := context.WithCancel(t.Context())
		shared := informers.NewSharedInformerFactory(client, 0)
		pods := view{shared}.Core().V1().Pods()
		var heard []string
		note := func(what string) func(any) {
			return func(o any) { heard = append(heard, what+" "+o.(metav1.Object).GetName()) }
		}
		update := note("update")
		handle, err := pods.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: note("add"), UpdateFunc: func(_, o any) { update(o) }, DeleteFunc: note("delete")})
		if err != nil {
			t.Fatal(err)
		}
		shared.Start(ctx.Done())
		shared.WaitForCacheSync(ctx.Done())
		synctest.Wait()
		if !handle.HasSynced() {
			t.Error("the handler is not synced")
		}
		slices.Sort(heard) // a list has no order
		expect := func(what string, want ...string) {
			t.Helper()
			time.Sleep(time.Second)
			synctest.Wait()
			if d := cmp.Diff(want, heard); d != "" {
				t.Errorf("%s (-want +got)\n%s", what, d)
			}
			heard = nil
		}
		put := func(p *corev1.Pod) {
			t.Helper()
			if _, err := client.CoreV1().Pods("a").Update(ctx, p, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		expect("at first", "add new", "add pending")
		put(pod("pending", corev1.PodRunning))
		expect("a pod runs", "update pending")
		put(pod("pending", corev1.PodSucceeded))
		expect("it ends", "delete pending")
		if err := client.CoreV1().Pods("a").Delete(ctx, "pending", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		expect("it is deleted")

		l := pods.Lister()
		for _, got := range []string{podNames(l.List(labels.Everything())), podNames(l.Pods("a").List(labels.Everything()))} {
			if got != "[new] <nil>" {
				t.Errorf("listed %s, want [new]", got)
			}
		}
		if _, err := l.Pods("a").Get("done"); !apierrors.IsNotFound(err) {
			t.Errorf("an ended pod: %v, want not found", err)
		}
		if p, err := l.Pods("a").Get("new"); err != nil || p.Name != "new" {
			t.Errorf("a live pod: %v, %v", p, err)
		}
		stop()
		shared.Shutdown()
	})
}

func TestTombstonesPassByTheirLastState(t *testing.T) {
	for phase, want := range map[corev1.PodPhase]bool{corev1.PodRunning: true, corev1.PodFailed: false} {
		if got := liveObject(cache.DeletedFinalStateUnknown{Key: "a/p", Obj: pod("p", phase)}); got != want {
			t.Errorf("a tombstone of a %s pod passes: %v, want %v", phase, got, want)
		}
	}
	if liveObject("not a pod") {
		t.Error("what is not a pod passes")
	}
}

func TestProfileIsTheDefaultOne(t *testing.T) {
	p, err := profiles(true)
	if err != nil || len(p) != 1 || p[0].SchedulerName != corev1.DefaultSchedulerName {
		t.Fatalf("%v, %v", p, err)
	}
	if d := p[0].Plugins.PreEnqueue.Disabled; len(d) != 1 || len(p[0].Plugins.MultiPoint.Enabled) < 15 {
		t.Errorf("disabled %v, enabled %v", d, p[0].Plugins.MultiPoint.Enabled)
	}
}

func TestOptionsNameWhatIsMissing(t *testing.T) {
	if err := Run(t.Context(), Options{}); err == nil {
		t.Error("no error without Config and Informers")
	}
}
