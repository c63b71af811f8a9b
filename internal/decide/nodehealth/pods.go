package nodehealth

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// task is something to be done to one pod of a node in trouble. Pods of other nodes have none, and cost nothing.
type task struct {
	kind taskKind
	pod  Pod
	node *node

	since    time.Time // eviction: when the pod met the taints that it does not tolerate forever
	due      time.Time
	busy     bool // in flight
	done     bool // done, and not seen yet
	failures uint8
	at       int32 // position in Set.tasks
}

type taskKind uint8

const (
	unready taskKind = iota
	evict
)

type taskKey struct {
	uid  types.UID
	kind taskKind
}

func taskBefore(a, b *task) bool {
	if c := a.due.Compare(b.due); c != 0 {
		return c < 0
	}
	if a.kind != b.kind {
		return a.kind < b.kind
	}
	return podBefore(&a.pod, &b.pod) < 0
}

func podBefore(a, b *Pod) int {
	if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
		return c
	}
	if c := strings.Compare(a.Name, b.Name); c != 0 {
		return c
	}
	return strings.Compare(string(a.UID), string(b.UID))
}

// SetPod tells what a pod now is. The object is not kept.
func (s *Set) SetPod(p *corev1.Pod, now time.Time) {
	n := s.nodes[p.Spec.NodeName]
	if n == nil || n.obj == nil || len(n.tasks) == 0 && !hasNoExecute(n.obj) {
		return
	}
	s.judgeStay(n, p, now)
	if p.DeletionTimestamp != nil || !saysReady(p) {
		s.dropTask(n, taskKey{p.UID, unready}, false)
	}
}

// RemovePod tells that a pod is gone.
func (s *Set) RemovePod(p *corev1.Pod) {
	if n := s.nodes[p.Spec.NodeName]; n != nil {
		s.dropTask(n, taskKey{p.UID, unready}, false)
		s.dropTask(n, taskKey{p.UID, evict}, false)
	}
}

// lookAtPods follows a change of a node to its pods.
func (s *Set) lookAtPods(n *node, before *corev1.Node, now time.Time) {
	var taints []corev1.Taint
	if before != nil {
		taints = before.Spec.Taints
	}
	stays := !sameNoExecute(taints, n.obj.Spec.Taints)
	fell := fellIll(before, n.obj)
	if readiness(n.obj) == corev1.ConditionTrue {
		s.dropTasks(n, func(t *task) bool { return t.kind == unready }, false)
	}
	if stays && !hasNoExecute(n.obj) {
		s.dropTasks(n, func(t *task) bool { return t.kind == evict }, true)
		stays = false
	}
	if !stays && !fell {
		return
	}
	for _, p := range s.o.Pods(n.name) {
		if p.Spec.NodeName != n.name {
			continue
		}
		if stays {
			s.judgeStay(n, p, now)
		}
		if fell && p.DeletionTimestamp == nil && saysReady(p) {
			s.addTask(&task{kind: unready, pod: podOf(p, NodeNotReady, now), node: n, due: now})
		}
	}
}

// fellIll tells whether the node stopped being ready, so that its pods' readiness is stale. That is said once, not
// held on to: a node that says of itself that it is not ready may well have pods that are, and reports them. After
// a new start only silence is known to be news for the pods.
func fellIll(before, now *corev1.Node) bool {
	is := readiness(now)
	if before == nil {
		return is == corev1.ConditionUnknown
	}
	return readiness(before) == corev1.ConditionTrue && is != corev1.ConditionTrue
}

// judgeStay decides whether and until when the pod may stay on its node.
func (s *Set) judgeStay(n *node, p *corev1.Pod, now time.Time) {
	key := taskKey{p.UID, evict}
	if p.DeletionTimestamp != nil {
		s.dropTask(n, key, false)
		return
	}
	limit := stay(p.Spec.Tolerations, n.obj.Spec.Taints)
	if limit == forever {
		s.dropTask(n, key, true)
		return
	}
	t := n.tasks[key]
	if t == nil {
		t = &task{kind: evict, pod: podOf(p, Untolerated, now), node: n, since: now}
	}
	if t.busy || t.done || t.failures > 0 {
		return
	}
	due := t.since.Add(limit)
	t.pod.Reason = TolerationExpired
	if limit == 0 {
		t.pod.Reason = Untolerated
		if due = now; t.at != 0 && t.due.Before(now) {
			due = t.due
		}
	}
	t.due = due
	t.pod.Due = t.due
	s.addTask(t)
}

func podOf(p *corev1.Pod, why Reason, due time.Time) Pod {
	return Pod{Namespace: p.Namespace, Name: p.Name, UID: p.UID, Node: p.Spec.NodeName, Reason: why, Due: due}
}

func saysReady(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func hasNoExecute(obj *corev1.Node) bool {
	return slices.ContainsFunc(obj.Spec.Taints, func(t corev1.Taint) bool { return t.Effect == corev1.TaintEffectNoExecute })
}

// addTask puts the task where it belongs, unless the pod has such a one that is under way.
func (s *Set) addTask(t *task) {
	key := taskKey{t.pod.UID, t.kind}
	if old := t.node.tasks[key]; old != nil && old != t {
		if old.busy || old.failures > 0 {
			return
		}
		s.tasks.remove(old)
	}
	if t.node.tasks == nil {
		t.node.tasks = map[taskKey]*task{}
	}
	t.node.tasks[key] = t
	s.tasks.put(t)
	s.news = true
}

// dropTask forgets a task. With reprieve, an eviction that has not begun is told about.
func (s *Set) dropTask(n *node, key taskKey, reprieve bool) {
	t := n.tasks[key]
	if t == nil {
		return
	}
	if reprieve && t.kind == evict && !t.busy && !t.done {
		t.pod.Reason = Tolerated
		s.reprieves = append(s.reprieves, t.pod)
		s.news = true
	}
	s.tasks.remove(t)
	delete(n.tasks, key)
	if len(n.tasks) == 0 {
		n.tasks = nil
	}
}

func (s *Set) dropTasks(n *node, which func(*task) bool, reprieve bool) {
	for key, t := range n.tasks {
		if which(t) {
			s.dropTask(n, key, reprieve)
		}
	}
}

// PodDone reports that an Unready or Eviction of Next was performed, or need not be any more.
func (s *Set) PodDone(p Pod) {
	if t := s.taskOf(p); t != nil {
		t.busy, t.done = false, true
	}
}

// PodFailed reports that it was not; it is tried again after a back-off.
func (s *Set) PodFailed(p Pod, now time.Time) {
	t := s.taskOf(p)
	if t == nil {
		return
	}
	t.busy = false
	t.failures = min(t.failures+1, 7)
	t.due = now.Add(backoff(t.failures))
	s.tasks.put(t)
	s.news = true
}

// taskOf finds the task that a Pod of Next stands for.
func (s *Set) taskOf(p Pod) *task {
	n := s.nodes[p.Node]
	if n == nil {
		return nil
	}
	kind := evict
	if p.Reason == NodeNotReady {
		kind = unready
	}
	if t := n.tasks[taskKey{p.UID, kind}]; t != nil && t.busy {
		return t
	}
	return nil
}

// dueTasks moves what is due into the actions.
func (s *Set) dueTasks(a *Actions, now time.Time, room int) {
	for s.tasks.len() > 0 && !s.tasks.first().due.After(now) {
		if a.Len() >= room {
			a.More = true
			return
		}
		t := s.tasks.pop()
		t.busy = true
		if t.kind == evict {
			a.Evictions = append(a.Evictions, t.pod)
		} else {
			a.Unready = append(a.Unready, t.pod)
		}
	}
}
