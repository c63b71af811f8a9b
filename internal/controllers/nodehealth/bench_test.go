package nodehealth

import (
	"fmt"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"

	machine "github.com/everynode/everynode/internal/decide/nodehealth"
)

// BenchmarkRenewal is what the controller spends on one renewed lease. It must not depend on the number of nodes.
func BenchmarkRenewal(b *testing.B) {
	for _, nodes := range []int{1_000, 20_000, 100_000} {
		b.Run(fmt.Sprint(nodes), func(b *testing.B) {
			client := fake.NewClientset()
			c, err := New(Options{Client: client, Informers: informers.NewSharedInformerFactory(client, 0)})
			if err != nil {
				b.Fatal(err)
			}
			start := time.Now()
			c.set = machine.New(c.o.Patience)
			names := make([]string, nodes)
			for i := range names {
				names[i] = fmt.Sprintf("node-%06d", i)
				n := newNode(names[i])
				n.Spec.Taints = nil
				n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
				c.set.SetNode(n, start)
			}
			c.set.Next(start, 0)
			handler := on(c, renewed, leaseGone)
			lease := func(name string, at time.Time) *coordinationv1.Lease {
				return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: leases, Name: name}, Spec: coordinationv1.LeaseSpec{RenewTime: ptr.To(metav1.NewMicroTime(at))}}
			}
			before := lease("", start)
			now := start
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				now = now.Add(time.Millisecond) // on the node's clock
				handler.OnUpdate(before, lease(names[i%nodes], now))
				if c.set.Pending() {
					b.Fatal("a renewal woke the loop")
				}
			}
		})
	}
}
