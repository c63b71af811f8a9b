package daemonset

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// oneNode is a world at rest: one node, one ready pod.
func oneNode(t *testing.T) (*world, *corev1.Pod) {
	t.Helper()
	w := newWorld(newDaemonSet(rolling("1", "0")))
	w.setNode(testNode("n1"))
	if w.settle() < 0 || len(w.pods) != 1 {
		t.Fatalf("no rest with one pod: %v", w.pods)
	}
	for _, p := range w.pods {
		return w, p
	}
	return nil, nil
}

// TestLostOwnerKeepsNode: a pod whose owner is taken away while our delete is on its way has the node to itself
// until it is seen going.
func TestLostOwnerKeepsNode(t *testing.T) {
	w, p := oneNode(t)
	w.update("agent:2")
	if a := w.next(10); len(a.Deletes) != 1 {
		t.Fatalf("want the old pod deleted: %s", dumpJSON(a))
	}
	w.changePod(p.Name, func(p *corev1.Pod) { p.OwnerReferences = nil }) // before the delete arrives
	w.deliverAll()
	if a := w.next(10); len(a.Creates) > 0 {
		t.Errorf("a successor beside a pod that still runs: %s", dumpJSON(a))
	}
}

// TestUnansweredCreateIsWaitedFor: while a create has no answer, that there is no such pod says nothing.
func TestUnansweredCreateIsWaitedFor(t *testing.T) {
	w := newWorld(newDaemonSet(rolling("1", "0")))
	w.setNode(testNode("n1"))
	w.deliverAll()
	c := w.next(10).Creates[0]
	for range 5 {
		w.now = w.now.Add(20 * time.Second)
		if a := w.next(10); a.Len() > 0 || a.WakeUp.IsZero() {
			t.Fatalf("acts without an answer, or does not wait for one: %s", dumpJSON(a))
		}
	}
	w.set.Created(c.Name, "uid") // stored, and gone before any watch has shown it
	w.now = w.now.Add(20 * time.Second)
	if a := w.next(10); len(a.Checks) != 1 {
		t.Errorf("want a check: %s", dumpJSON(a))
	}
}

// TestRepeatedDeleteKeepsItsPlace: a delete that has not shown for long is repeated, but the first may still
// arrive, so its node stays counted as unavailable.
func TestRepeatedDeleteKeepsItsPlace(t *testing.T) {
	w, p := oneNode(t)
	w.setNode(testNode("n2"))
	if w.settle() < 0 {
		t.Fatal("no rest")
	}
	w.update("agent:2")
	first := w.next(10).Deletes
	w.now = w.now.Add(10 * time.Second)
	a := w.next(10)
	if len(first) != 1 || first[0].Name != p.Name || len(a.Checks) != 1 {
		t.Fatalf("want one delete, then one check: %s\n%s", dumpJSON(first), dumpJSON(a))
	}
	w.performCheck(a.Checks[0])
	if a = w.next(10); len(a.Deletes) != 1 || a.Deletes[0].Name != p.Name {
		t.Errorf("want the same delete again, and no other: %s", dumpJSON(a))
	}
}
