package upstream

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"
)

// TestHistories has both controllers live through the same random histories. After each event, once both are at
// rest, there must be the same pods on the same nodes, the same status and the same ControllerRevisions.
//
// Before upstream's world is looked at, its DaemonSet is touched: its controller leaves the status as it was after
// some events that change it (see TestUpstreamLeavesStatusStale). Ours is looked at as it is.
func TestHistories(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		h := drawHistory(rt)
		want := h.live(t, theirs, func(w *world, n int) {
			if w.daemonSet() != nil {
				w.change(func(ds *appsv1.DaemonSet) { ds.Labels = map[string]string{"touched": fmt.Sprint(n)} })
				w.rest()
			}
		})
		got := h.live(t, ours, func(*world, int) {})
		for i := range want {
			if d := gocmp.Diff(want[i], got[i], cmpopts.EquateEmpty()); d != "" {
				rt.Fatalf("after event %d (-upstream's +ours):\n%s\nhistory:\n%s", i, d, h[:i+1])
			}
		}
	})
}

// event is something that happens in a cluster; what is the same in every world.
type event struct {
	what string
	do   func(*world)
	// anyNode: which of the nodes are affected is the controller's choice, so only their number is compared.
	anyNode bool
	// anyRevision: from here on there may be pods of many revisions, and which of them outlive their pods depends on
	// the order in which those go, so only the newest and their number are compared.
	anyRevision bool
}

type history []event

func (h history) String() string {
	var b strings.Builder
	for i, e := range h {
		fmt.Fprintf(&b, "%3d %s\n", i, e.what)
	}
	return b.String()
}

// live plays the history under a controller, and returns the world as it was at rest after each event.
func (h history) live(t *testing.T, controller start, touch func(*world, int)) []view {
	var views []view
	inWorld(t, controller, func(w *world) {
		anyRevision := false
		for i, e := range h {
			e.do(w)
			w.rest()
			touch(w, i)
			v := w.view()
			if anyRevision = anyRevision || e.anyRevision; anyRevision {
				v.Revisions = newest(v.Revisions)
			}
			if e.anyNode {
				v.Pods = anonymous(v.Pods)
			}
			views = append(views, v)
		}
	})
	return views
}

// newest keeps the revision with the highest number, and blanks the others.
func newest(all []revisionView) []revisionView {
	slices.SortFunc(all, func(a, b revisionView) int { return int(b.Number - a.Number) })
	for i := range all {
		if i > 0 {
			all[i] = revisionView{}
		}
	}
	return all
}

// anonymous replaces the name of a node by what the DaemonSet's pods on it look like.
func anonymous(pods map[string][]podView) map[string][]podView {
	out := map[string][]podView{}
	for node, on := range pods {
		key := ""
		var owned []podView
		for _, p := range on {
			if len(p.Owners) == 0 {
				out["somebody's on "+node] = append(out["somebody's on "+node], p)
				continue
			}
			key += fmt.Sprintf("%s ready=%v ", p.Spec.Containers[0].Image, p.Ready)
			p.Spec = corev1.PodSpec{} // it names the node
			owned = append(owned, p)
		}
		out[key] = append(out[key], owned...)
	}
	for _, pods := range out {
		slices.SortFunc(pods, comparePods)
	}
	return out
}

// The nodes that histories are about.
const nodeCount = 5

func drawHistory(t *rapid.T) history {
	h := history{{what: "create the DaemonSet", do: func(w *world) { w.create(newDaemonSet()) }}}
	for i := range rapid.IntRange(0, nodeCount).Draw(t, "nodes at first") {
		h = append(h, nodeEvent(t, i))
	}
	for range rapid.IntRange(4, 20).Draw(t, "events") {
		h = append(h, drawEvents(t)...)
	}
	return h
}

// drawEvents draws one event, or two of which the second undoes the first.
func drawEvents(t *rapid.T) []event {
	draw := oneOf(
		someNodes, someNodes, someNodes, newImage, newImage, newPlacement, newStrategy, newStrategy, newMinReady, newLimit,
		podsEnd, podsUnready, podsDeleted, podReleased, strangerAdopted, brokenUpdate, recreated, adopted,
	).Draw(t, "event")
	return draw(t)
}

// someNodes changes several nodes at once, each in one way.
func someNodes(t *rapid.T) []event {
	var all []event
	for i := range nodeCount {
		if chance(t, 3) {
			all = append(all, nodeEvent(t, i))
		}
	}
	what := make([]string, len(all))
	for i, e := range all {
		what[i] = e.what
	}
	return []event{{what: strings.Join(what, ", "), do: func(w *world) {
		for _, e := range all {
			e.do(w)
		}
	}}}
}

func nodeEvent(t *rapid.T, i int) event {
	name := nodeName(i)
	if chance(t, 4) {
		return event{what: name + " leaves", do: func(w *world) { w.api.RemoveNode(name) }}
	}
	n := drawNode(t, name)
	n.Status.Allocatable = roomy()
	if chance(t, 2) {
		n.Spec.Taints = nil
	}
	return event{
		what: fmt.Sprintf("%s is there with labels %v and taints %v", name, n.Labels, n.Spec.Taints),
		do:   func(w *world) { w.api.Put(n) },
	}
}

func changed(what string, f func(*appsv1.DaemonSet)) []event {
	return []event{{what: what, do: func(w *world) { w.change(f) }}}
}

func newImage(t *rapid.T) []event {
	image := fmt.Sprintf("agent:%d", rapid.IntRange(1, 4).Draw(t, "image"))
	return changed("image "+image, func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.Containers[0].Image = image })
}

func newPlacement(t *rapid.T) []event {
	like := drawDaemonSet(t).Spec.Template.Spec
	return changed(fmt.Sprintf("template %+v", like), func(ds *appsv1.DaemonSet) {
		like.Containers = ds.Spec.Template.Spec.Containers
		ds.Spec.Template.Spec = *like.DeepCopy()
	})
}

func newStrategy(t *rapid.T) []event {
	s := appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType}
	if !chance(t, 4) {
		unavailable, surge := intstr.Parse(oneOf("1", "2", "50%", "100%").Draw(t, "maxUnavailable")), intstr.FromInt32(0)
		if chance(t, 2) {
			unavailable, surge = intstr.FromInt32(0), intstr.Parse(oneOf("1", "2", "30%", "100%").Draw(t, "maxSurge"))
		}
		s.Type = appsv1.RollingUpdateDaemonSetStrategyType
		s.RollingUpdate = &appsv1.RollingUpdateDaemonSet{MaxUnavailable: &unavailable, MaxSurge: &surge}
	}
	what := string(s.Type)
	if s.RollingUpdate != nil {
		what += fmt.Sprintf(" maxUnavailable %v maxSurge %v", s.RollingUpdate.MaxUnavailable, s.RollingUpdate.MaxSurge)
	}
	return []event{{
		what: what, anyRevision: s.RollingUpdate == nil,
		do: func(w *world) { w.change(func(ds *appsv1.DaemonSet) { ds.Spec.UpdateStrategy = *s.DeepCopy() }) },
	}}
}

func newMinReady(t *rapid.T) []event {
	seconds := oneOf[int32](0, 5, 30).Draw(t, "minReadySeconds")
	return changed(fmt.Sprintf("minReadySeconds %d", seconds), func(ds *appsv1.DaemonSet) { ds.Spec.MinReadySeconds = seconds })
}

func newLimit(t *rapid.T) []event {
	limit := rapid.Int32Range(0, 3).Draw(t, "limit")
	return changed(fmt.Sprintf("revisionHistoryLimit %d", limit), func(ds *appsv1.DaemonSet) { ds.Spec.RevisionHistoryLimit = &limit })
}

// onPods does something to the pods on some of the nodes.
func onPods(t *rapid.T, what string, f func(*world, *corev1.Pod)) event {
	var nodes []string
	for i := range nodeCount {
		if chance(t, 2) {
			nodes = append(nodes, nodeName(i))
		}
	}
	return event{what: fmt.Sprintf("the pods on %v %s", nodes, what), do: func(w *world) {
		for _, n := range nodes {
			for _, p := range w.podsOn(n) {
				f(w, p)
			}
		}
	}}
}

func podsEnd(t *rapid.T) []event {
	phase := oneOf(corev1.PodFailed, corev1.PodFailed, corev1.PodSucceeded).Draw(t, "phase")
	return []event{onPods(t, "are "+string(phase), func(w *world, p *corev1.Pod) {
		w.changePod(p, func(p *corev1.Pod) { p.Status = corev1.PodStatus{Phase: phase} })
	})}
}

func podsUnready(t *rapid.T) []event {
	down := onPods(t, "are not ready", func(w *world, p *corev1.Pod) { w.changePod(p, ready(false)) })
	up := event{what: "all pods are ready", do: func(w *world) { setReady(w, true) }}
	return []event{down, up}
}

// setReady makes all pods that run ready, or not.
func setReady(w *world, is bool) {
	for _, p := range w.api.Pods() {
		if p.Status.Phase == corev1.PodRunning && (p.Status.Conditions[0].Status == corev1.ConditionTrue) != is {
			w.changePod(p, ready(is))
		}
	}
}

func podsDeleted(t *rapid.T) []event {
	return []event{onPods(t, "are deleted", func(w *world, p *corev1.Pod) {
		if err := w.client.CoreV1().Pods(p.Namespace).Delete(context.Background(), p.Name, metav1.DeleteOptions{}); err != nil {
			panic(err)
		}
	})}
}

func podReleased(t *rapid.T) []event {
	return []event{onPods(t, "lose the label", func(w *world, p *corev1.Pod) {
		w.changePod(p, func(p *corev1.Pod) { p.Labels["app"] = "other" })
	})}
}

// strangerAdopted is a pod that someone made by hand and that the selector matches.
func strangerAdopted(t *rapid.T) []event {
	node := nodeName(rapid.IntRange(0, nodeCount-1).Draw(t, "node"))
	return []event{{what: "somebody's pod on " + node, do: func(w *world) {
		p := &corev1.Pod{Spec: newDaemonSet().Spec.Template.Spec}
		p.Namespace, p.Name, p.Labels = "ops", "by-hand", map[string]string{"app": "agent"}
		p.Spec.NodeName = node
		p.Status.Phase = corev1.PodPending
		if slices.ContainsFunc(w.api.Nodes(), func(n *corev1.Node) bool { return n.Name == node }) {
			w.api.Put(p)
		}
	}}}
}

// brokenUpdate rolls out what never becomes ready, as far as the budget goes, and then something else.
func brokenUpdate(t *rapid.T) []event {
	set := func(image string) func(*world) {
		return func(w *world) {
			w.change(func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.Containers[0].Image = image })
		}
	}
	// Images that no node has had make all nodes alike, so that it matters not which the broken one is on.
	alike := fmt.Sprintf("agent:%d", rapid.IntRange(100, 1<<30).Draw(t, "image"))
	good := alike + "-good"
	// A pod that only a taint keeps from being wanted may or may not be what the update takes first.
	untaint := func(w *world) {
		for _, n := range w.api.Nodes() {
			n = n.DeepCopy()
			n.Spec.Taints = nil
			w.api.Put(n)
		}
	}
	return []event{
		{what: "no node has taints", do: untaint},
		{what: "image " + alike, do: set(alike)},
		{what: "image " + brokenImage, do: set(brokenImage), anyNode: true},
		{what: "no pod is ready", do: func(w *world) { setReady(w, false) }, anyNode: true},
		{what: "image " + good, do: set(good)},
		{what: "all pods are ready", do: func(w *world) { setReady(w, true) }},
	}
}

// recreated deletes the DaemonSet with all that is its, and makes it anew.
func recreated(*rapid.T) []event {
	return []event{{what: "the DaemonSet is deleted, then created again", do: func(w *world) {
		ds := w.daemonSet()
		w.api.RemoveDaemonSet(ds.Namespace, ds.Name)
		w.rest()
		w.create(ds)
	}}}
}

// adopted deletes the DaemonSet with its pods and revisions orphaned, step by step as the garbage collector does
// it, and makes it anew.
func adopted(*rapid.T) []event {
	return []event{{what: "the DaemonSet is deleted, its pods orphaned, and created again", do: func(w *world) {
		ds := w.daemonSet()
		deleting, now := ds.DeepCopy(), metav1.Now()
		deleting.DeletionTimestamp = &now
		w.api.Put(deleting)
		w.rest()
		for _, p := range w.api.Pods() {
			if metav1.IsControlledBy(p, ds) {
				w.changePod(p, func(p *corev1.Pod) { p.OwnerReferences = nil })
			}
		}
		for _, r := range w.api.Revisions() {
			r = r.DeepCopy()
			r.OwnerReferences = nil
			w.api.Put(r)
		}
		w.rest()
		w.api.RemoveDaemonSet(ds.Namespace, ds.Name)
		w.rest()
		w.create(ds)
	}}}
}
