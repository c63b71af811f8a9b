package housekeeping

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
)

// The handler hears once of a burst, of nothing that does not matter, and of the last of what does.
func TestZoneNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		ctx, stop := context.WithCancel(t.Context())
		shared := informers.NewSharedInformerFactory(client, 0)
		told := 0
		if _, err := (zoneNodes{shared.Core().V1().Nodes()}).Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { told++ },
		}); err != nil {
			t.Fatal(err)
		}
		shared.Start(ctx.Done())
		shared.WaitForCacheSync(ctx.Done())
		expect := func(what string, want int) {
			t.Helper()
			synctest.Wait()
			if told != 0 {
				t.Errorf("%s: told before the pause", what)
			}
			time.Sleep(2 * zonePause)
			synctest.Wait()
			if told != want {
				t.Errorf("%s: told %d times, want %d", what, told, want)
			}
			told = 0
		}
		nodes := client.CoreV1().Nodes()
		node := func(i int) *corev1.Node {
			return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("n", i), Labels: map[string]string{}}}
		}
		update := func(n *corev1.Node) {
			t.Helper()
			if _, err := nodes.Update(ctx, n, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 100 {
			if _, err := nodes.Create(ctx, node(i), metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		expect("100 nodes join", 1)
		n := node(1)
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionFalse}}
		update(n)
		expect("a heartbeat", 0)
		n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue})
		update(n)
		expect("ready", 1)
		n.Labels[corev1.LabelTopologyZone] = "a"
		update(n)
		expect("another zone", 1)
		if err := nodes.Delete(ctx, n.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		expect("gone", 1)
		stop()
		shared.Shutdown()
	})
}
