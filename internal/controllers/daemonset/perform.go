package daemonset

import (
	"context"
	"errors"
	"net/http"
	"time"

	machine "github.com/everynode/everynode/internal/decide/daemonset"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

// writeTimeout bounds one write: an answer that takes longer is treated as lost.
const writeTimeout = 30 * time.Second

// writeContext is the context of a write that begins now. All that begin within a second share one and its deadline:
// a timer for each would cost a tenth of a rollout.
func (c *Controller) writeContext(now time.Time) context.Context {
	if c.writing == nil || now.Sub(c.writingSince) > time.Second {
		ctx, cancel := context.WithDeadline(c.ctx, now.Add(writeTimeout+time.Second))
		context.AfterFunc(ctx, cancel)
		c.writing, c.writingSince = ctx, now
	}
	return c.writing
}

// perform starts all actions of a DaemonSet. Each takes one place of the parallelism until it is reported. What
// runs beside the loop is given the object as it is now, and touches the daemon only in its report.
func (c *Controller) perform(d *daemon, a *machine.Actions) {
	ds := d.ds
	for _, x := range a.Deletes {
		c.notePodEnd(d, x)
		c.start(d, func(ctx context.Context) func() { return c.deletePod(ctx, d, ds, x) })
	}
	for _, x := range a.Creates {
		c.noteNoRoom(d, x)
		c.start(d, func(ctx context.Context) func() { return c.createPod(ctx, d, ds, x) })
	}
	for _, x := range a.Checks {
		c.start(d, func(ctx context.Context) func() { return c.checkPod(ctx, d, ds, x) })
	}
	if len(a.Claims) > 0 {
		c.claim(d, a.Claims)
	}
	if a.Status != nil {
		c.writeStatus(d, *a.Status)
	}
}

// start runs one pod write; what it returns is run by the loop.
func (c *Controller) start(d *daemon, write func(context.Context) func()) {
	c.inFlight++
	ctx := c.writeContext(time.Now())
	c.after(func() func() {
		report := write(ctx)
		return func() {
			c.inFlight--
			report()
			c.enqueue(d)
		}
	})
}

func (c *Controller) createPod(ctx context.Context, d *daemon, ds *daemonSet, x machine.Create) func() {
	created, err := c.o.Writer.CreatePod(ctx, x.Template.Pod(x))
	switch {
	case err == nil:
		if log := klog.FromContext(ctx).V(3); log.Enabled() {
			log.Info("Created daemon pod", "pod", klog.KObj(created), "node", x.Node, "reason", x.Reason, "bound", x.Bound)
		}
		return func() {
			d.set.Created(x.Name, created.UID)
			c.note(d, corev1.EventTypeNormal, "SuccessfulCreate", "Created pod: %v", x.Name)
		}
	case apierrors.IsAlreadyExists(err):
		uid, found, ours := c.holder(ctx, ds.Namespace, x.Name, x.Node, ds.UID)
		switch {
		case ours:
			return func() { d.set.Created(x.Name, uid) }
		case found:
			return func() { d.set.CreateFailed(x.Name, machine.Taken, time.Now()) }
		}
	}
	klog.FromContext(ctx).V(2).Info("Could not create daemon pod", "pod", klog.KRef(ds.Namespace, x.Name), "node", x.Node, "err", err)
	return func() {
		d.set.CreateFailed(x.Name, failureOf(err), time.Now())
		if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) && c.ctx.Err() == nil {
			c.note(d, corev1.EventTypeWarning, "FailedCreate", "Error creating: %v", err)
		}
	}
}

// failureOf tells an answer that says no from one that says nothing: after a timeout, a lost connection or an
// internal error the pod may have been stored.
func failureOf(err error) machine.Failure {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		if code := status.Status().Code; code >= 400 && code < 500 && code != http.StatusRequestTimeout && code != http.StatusConflict {
			return machine.Refused
		}
	}
	return machine.Lost
}

// holder looks up who has a name that we wanted: our own pod for this very node, made by a create whose answer
// was lost or by another leader, or something else.
func (c *Controller) holder(ctx context.Context, namespace, name, node string, set types.UID) (uid types.UID, found, ours bool) {
	live, err := c.o.Client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil { // gone again, or not to be known: a retry will tell
		return "", false, false
	}
	return live.UID, true, ownerOf(live).uid == set && machine.TargetNode(live) == node
}

func (c *Controller) deletePod(ctx context.Context, d *daemon, ds *daemonSet, x machine.Delete) func() {
	err := c.o.Writer.DeletePod(ctx, ds.Namespace, x.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &x.UID},
	})
	switch {
	case err == nil:
		klog.FromContext(ctx).V(3).Info("Deleted daemon pod", "pod", klog.KRef(ds.Namespace, x.Name), "node", x.Node, "reason", x.Reason)
		return func() { c.note(d, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: %v", x.Name) }
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		return func() {} // it is gone; the watch will show it
	}
	return func() {
		d.set.DeleteFailed(x.Name, x.UID, time.Now())
		if c.ctx.Err() == nil {
			c.note(d, corev1.EventTypeWarning, "FailedDelete", "Error deleting: %v", err)
		}
	}
}

// checkPod looks up a pod that should have been seen, or seen gone, long ago.
func (c *Controller) checkPod(ctx context.Context, d *daemon, ds *daemonSet, x machine.Check) func() {
	live, err := c.o.Client.CoreV1().Pods(ds.Namespace).Get(ctx, x.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err), err == nil && x.UID != "" && live.UID != x.UID:
		return func() { d.set.Gone(x.Name, x.UID) }
	case err == nil:
		return func() { d.set.Found(x.Name, live.UID, live.DeletionTimestamp != nil) }
	default:
		return func() {} // the machine asks again
	}
}
