package upstream

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What ours does otherwise than upstream's, on purpose. Each test fails when either of them changes, so that what
// is written about it stays true.

// withThreeNodes stores three nodes and the DaemonSet.
func withThreeNodes(w *world) {
	threeNodes(w)
	w.create(newDaemonSet())
}

func threeNodes(w *world) {
	for i := range 3 {
		n := &corev1.Node{}
		n.Name, n.Status.Allocatable = nodeName(i), roomy()
		w.api.Put(n)
	}
}

// TestUpstreamLeavesStatusStale: a NoSchedule taint takes a node out of those that should have a pod. Upstream
// looks at a node's change only if it adds or removes a pod (or if pods are misscheduled already), and so counts
// the node until something else happens. Ours counts every change at once.
func TestUpstreamLeavesStatusStale(t *testing.T) {
	status := func(controller start, touch bool) (v appsv1.DaemonSetStatus) {
		inWorld(t, controller, func(w *world) {
			withThreeNodes(w)
			w.rest()
			n := w.api.Nodes()[0].DeepCopy()
			n.Spec.Taints = []corev1.Taint{{Key: "gpu", Effect: corev1.TaintEffectNoSchedule}}
			w.api.Put(n)
			w.rest()
			if touch {
				w.change(func(ds *appsv1.DaemonSet) { ds.Labels = map[string]string{"touched": "true"} })
				w.rest()
			}
			v = w.daemonSet().Status
		})
		return v
	}
	for _, c := range []struct {
		name                  string
		controller            start
		touch                 bool
		desired, misscheduled int32
	}{
		{"upstream's", theirs, false, 3, 0},
		{"upstream's when touched", theirs, true, 2, 1},
		{"ours", ours, false, 2, 1},
	} {
		got := status(c.controller, c.touch)
		if got.DesiredNumberScheduled != c.desired || got.NumberMisscheduled != c.misscheduled {
			t.Errorf("%s: desired %d, misscheduled %d; want %d and %d", c.name, got.DesiredNumberScheduled, got.NumberMisscheduled, c.desired, c.misscheduled)
		}
	}
}

// TestOursBindsAtCreation: upstream's pods wait for the scheduler to bind them to the one node that they may go
// to. Ours are created bound when the node has room, and left to the scheduler when it has not.
func TestOursBindsAtCreation(t *testing.T) {
	created := func(controller start) map[string]string {
		nodes := map[string]string{}
		inWorld(t, controller, func(w *world) {
			threeNodes(w)
			full := w.api.Nodes()[2].DeepCopy()
			delete(full.Status.Allocatable, corev1.ResourcePods)
			w.api.Put(full)
			w.create(newDaemonSet())
			time.Sleep(time.Second) // nobody else plays
			synctest.Wait()
			for _, p := range w.api.Pods() {
				required := p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
				nodes[required.NodeSelectorTerms[0].MatchFields[0].Values[0]] = p.Spec.NodeName
			}
		})
		return nodes
	}
	if got, want := fmt.Sprint(created(theirs)), "map[node-0: node-1: node-2:]"; got != want {
		t.Errorf("upstream's pods are bound as %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(created(ours)), "map[node-0:node-0 node-1:node-1 node-2:]"; got != want {
		t.Errorf("our pods are bound as %s, want %s", got, want)
	}
}

// TestOursIsDeterministic: upstream takes nodes in the order of a Go map, and the API invents its pods' names. Ours
// takes nodes by name, and a pod's name follows from the DaemonSet, the node, the revision and the attempt: so a
// create that is repeated, by a second leader too, cannot make a second pod.
func TestOursIsDeterministic(t *testing.T) {
	play := func() (updated string, names []string) {
		inWorld(t, ours, func(w *world) {
			withThreeNodes(w)
			w.rest()
			w.change(func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.Containers[0].Image = brokenImage })
			w.rest()
			for _, p := range w.api.Pods() {
				names = append(names, p.Name)
				if p.Spec.Containers[0].Image == brokenImage {
					updated += p.Spec.NodeName
				}
				if p.GenerateName != "" || !metav1.IsControlledBy(p, w.daemonSet()) {
					t.Errorf("pod %+v", p.ObjectMeta)
				}
			}
		})
		return updated, names
	}
	updated, names := play()
	if updated != nodeName(0) {
		t.Errorf("an update that is stuck is on %q, want the first node", updated)
	}
	if _, again := play(); fmt.Sprint(again) != fmt.Sprint(names) {
		t.Errorf("names %v, then %v", names, again)
	}
}
