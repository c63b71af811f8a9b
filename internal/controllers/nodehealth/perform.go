package nodehealth

import (
	"context"
	"encoding/json"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	machine "github.com/everynode/everynode/internal/decide/nodehealth"
)

// writeTimeout bounds one write; the machine asks for it again.
const writeTimeout = 30 * time.Second

// object is the body of a patch.
type object map[string]any

// perform starts all actions.
func (c *Controller) perform(ctx context.Context, a *machine.Actions) {
	log := klog.FromContext(ctx)
	if a.Fleet != nil {
		log.Info("The fleet's state changed; it decides how fast nodes are emptied", "state", a.Fleet.State, "ready", a.Fleet.Ready, "notReady", a.Fleet.NotReady)
	}
	for _, x := range a.Statuses {
		c.start(ctx, func(ctx context.Context) func(*machine.Set, time.Time) { return c.writeStatus(ctx, x) })
	}
	for _, x := range a.Taintings {
		c.start(ctx, func(ctx context.Context) func(*machine.Set, time.Time) { return c.writeTaints(ctx, x) })
	}
	for _, x := range a.Unready {
		c.start(ctx, func(ctx context.Context) func(*machine.Set, time.Time) {
			return c.podReport(ctx, x, c.markUnready(ctx, x))
		})
	}
	for _, x := range a.Evictions {
		c.start(ctx, func(ctx context.Context) func(*machine.Set, time.Time) { return c.podReport(ctx, x, c.evict(ctx, x)) })
	}
	for _, x := range a.Reprieves {
		c.note(podRef(x), corev1.EventTypeNormal, "TaintManagerEviction", "Cancelling deletion of Pod %s/%s", x.Namespace, x.Name)
	}
}

// writeStatus merges conditions into the node's status.
func (c *Controller) writeStatus(ctx context.Context, x machine.Status) func(*machine.Set, time.Time) {
	n, err := c.patchNode(ctx, types.StrategicMergePatchType, x.Node, object{
		"metadata": precondition(x.UID, x.Version),
		"status":   object{"conditions": x.Conditions},
	}, "status")
	if err != nil {
		return nodeFailed(ctx, x.Node, x.UID, err)
	}
	klog.FromContext(ctx).Info("Node is silent, and now Unknown", "node", klog.KRef("", x.Node), "reason", x.Reason, "lastSign", x.LastSign)
	c.note(nodeRef(x.Node, x.UID), corev1.EventTypeNormal, "NodeNotReady", "Node %s status is now: NodeNotReady", x.Node)
	return func(s *machine.Set, now time.Time) { s.Written(n, now) }
}

// writeTaints replaces the node's taints.
func (c *Controller) writeTaints(ctx context.Context, x machine.Tainting) func(*machine.Set, time.Time) {
	meta := precondition(x.UID, x.Version)
	if len(x.Labels) > 0 {
		meta["labels"] = x.Labels
	}
	n, err := c.patchNode(ctx, types.MergePatchType, x.Node, object{"metadata": meta, "spec": object{"taints": x.Taints}})
	if err != nil {
		return nodeFailed(ctx, x.Node, x.UID, err)
	}
	klog.FromContext(ctx).V(1).Info("Wrote node's taints", "node", klog.KRef("", x.Node), "reason", x.Reason, "added", keys(x.Added), "removed", keys(x.Removed))
	return func(s *machine.Set, now time.Time) { s.Written(n, now) }
}

// precondition makes a patch fail unless the object still is that one and of that version.
func precondition(uid types.UID, version string) object {
	meta := object{"uid": uid}
	if version != "" {
		meta["resourceVersion"] = version
	}
	return meta
}

func (c *Controller) patchNode(ctx context.Context, kind types.PatchType, name string, patch object, subresources ...string) (*corev1.Node, error) {
	body, err := json.Marshal(patch)
	if err != nil {
		return nil, err
	}
	return c.o.Client.CoreV1().Nodes().Patch(ctx, name, kind, body, metav1.PatchOptions{}, subresources...)
}

func nodeFailed(ctx context.Context, name string, uid types.UID, err error) func(*machine.Set, time.Time) {
	switch {
	case apierrors.IsConflict(err), apierrors.IsNotFound(err), ctx.Err() != nil: // it changed; the watch will show how
		klog.FromContext(ctx).V(2).Info("Node changed meanwhile", "node", klog.KRef("", name), "err", err)
	default:
		klog.FromContext(ctx).Error(err, "Could not write node; it is tried again", "node", klog.KRef("", name))
	}
	return func(s *machine.Set, now time.Time) { s.Failed(name, uid, now) }
}

// markUnready takes the pod's readiness back: services must not send it anything.
func (c *Controller) markUnready(ctx context.Context, x machine.Pod) error {
	err := c.patchPodStatus(ctx, x, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionFalse, LastTransitionTime: metav1.Now()})
	if err == nil {
		c.note(podRef(x), corev1.EventTypeWarning, "NodeNotReady", "Node is not ready")
	}
	return err
}

// evict says in the pod's status why it goes, and deletes it.
func (c *Controller) evict(ctx context.Context, x machine.Pod) error {
	err := c.patchPodStatus(ctx, x, corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now(),
		Reason: "DeletionByTaintManager", Message: "Taint manager: deleting due to NoExecute taint",
	})
	if err != nil {
		return err
	}
	c.note(podRef(x), corev1.EventTypeNormal, "TaintManagerEviction", "Marking for deletion Pod %s/%s", x.Namespace, x.Name)
	klog.FromContext(ctx).Info("Evicting pod", "pod", klog.KRef(x.Namespace, x.Name), "node", klog.KRef("", x.Node), "reason", x.Reason, "due", x.Due)
	return c.o.Client.CoreV1().Pods(x.Namespace).Delete(ctx, x.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &x.UID}})
}

func (c *Controller) patchPodStatus(ctx context.Context, x machine.Pod, condition corev1.PodCondition) error {
	body, err := json.Marshal(object{"metadata": object{"uid": x.UID}, "status": object{"conditions": []corev1.PodCondition{condition}}})
	if err != nil {
		return err
	}
	_, err = c.o.Client.CoreV1().Pods(x.Namespace).Patch(ctx, x.Name, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status")
	return err
}

func (c *Controller) podReport(ctx context.Context, x machine.Pod, err error) func(*machine.Set, time.Time) {
	switch {
	case err == nil, apierrors.IsNotFound(err):
		return func(s *machine.Set, _ time.Time) { s.PodDone(x) }
	case ctx.Err() == nil && !apierrors.IsConflict(err): // it changed, or is another one: the watch tells
		klog.FromContext(ctx).Error(err, "Could not follow a node's trouble to its pod; it is tried again",
			"pod", klog.KRef(x.Namespace, x.Name), "node", klog.KRef("", x.Node), "reason", x.Reason)
	}
	return func(s *machine.Set, now time.Time) { s.PodFailed(x, now) }
}

func keys(taints []corev1.Taint) []string {
	out := make([]string, len(taints))
	for i := range taints {
		out[i] = taints[i].ToString()
	}
	return out
}
