package upstream

import (
	"testing"

	"github.com/everynode/everynode/internal/decide/placement"
	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/daemon"
	"k8s.io/kubernetes/pkg/controller/daemon/util"
	"pgregory.net/rapid"
)

// TestPlacement compares Judge with NodeShouldRunDaemonPod: In is (run, continue), Stay is continue only, Out is
// neither. The explanation must say the same as the judgement, with a reason if and only if it is not In.
func TestPlacement(t *testing.T) {
	seen := map[placement.Outcome]int{}
	rapid.Check(t, func(t *rapid.T) {
		var nodes []*corev1.Node
		for i := range 20 {
			nodes = append(nodes, drawNode(t, nodeName(i)))
		}
		for range 10 {
			ds := drawDaemonSet(t)
			template := placement.Compile(ds.Namespace, &ds.Spec.Template)
			for _, n := range nodes {
				want := upstreamOutcome(n, ds)
				got := template.Judge(placement.NodeOf(n))
				seen[got]++
				if got != want {
					t.Fatalf("ours %v, upstream's %v\nnode %+v\n%+v\ntemplate %+v", got, want, n.ObjectMeta, n.Spec, ds.Spec.Template.Spec)
				}
				why := template.Explain(placement.NodeOf(n))
				if why.Outcome != want || (len(why.Reasons) == 0) != (want == placement.In) {
					t.Fatalf("judged %v, explained as %v", want, why)
				}
			}
		}
	})
	t.Logf("cases: %v", seen)
	for _, o := range []placement.Outcome{placement.In, placement.Stay, placement.Out} {
		if seen[o] < 500 {
			t.Errorf("only %d cases were %v: the generator has become too narrow", seen[o], o)
		}
	}
}

func upstreamOutcome(n *corev1.Node, ds *appsv1.DaemonSet) placement.Outcome {
	switch run, stay := daemon.NodeShouldRunDaemonPod(klog.Background(), n, ds); {
	case run:
		return placement.In
	case stay:
		return placement.Stay
	default:
		return placement.Out
	}
}

// TestTolerations compares the tolerations that a daemon's pods get.
func TestTolerations(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		for range 20 {
			spec := corev1.PodSpec{Tolerations: several(t, 6, drawToleration), HostNetwork: chance(t, 2)}
			got := placement.DaemonTolerations(&spec)
			want := spec.DeepCopy()
			util.AddOrUpdateDaemonPodTolerations(want)
			if d := cmp.Diff(want.Tolerations, got); d != "" {
				t.Fatalf("tolerations of %+v (-upstream's +ours):\n%s", spec.Tolerations, d)
			}
		}
	})
}
