package pods

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/decide/podlife"
)

// reporter keeps the API's copy of one pod's status as the worker decided it. It
// belongs to the worker's goroutine, but for the write itself.
type reporter struct {
	busy bool
	// acked is the status last written, stored what the API made of it: the two may
	// differ, and that is no reason to write again.
	acked, stored *corev1.PodStatus
	// at is when the API last took a status.
	at time.Time
	// retry is when a failed write may be repeated; wait grows with each failure.
	retry time.Time
	wait  time.Duration
}

// Back-off of failed status writes. The longest is short: a server that comes
// back shall know at once.
const (
	firstReportWait = 100 * time.Millisecond
	maxReportWait   = 3 * time.Second
	reportTimeout   = 10 * time.Second
)

// sendReport writes the plan's status, if it differs from what the API has. One
// write at a time; the newest status wins. After a failure it returns when to call again.
func (w *worker) sendReport(ctx context.Context, plan podlife.Plan, now time.Time) (again time.Time) {
	r, stored := &w.report, w.stored()
	if w.facts.Gone || r.busy || now.Before(plan.Report) || w.inFlight(podlife.DeletePod) || stored == nil || !r.differs(&stored.Status, &plan.Status) {
		return time.Time{}
	}
	if now.Before(r.retry) {
		return r.retry
	}
	r.busy = true
	pod := withStatusOf(stored, &plan.Status)
	w.m.running.Go(func() {
		got, err := w.m.writeStatus(ctx, pod)
		w.post(func() { w.reported(ctx, pod, got, err) })
	})
	return time.Time{}
}

// owes tells that the API does not have the plan's status yet.
func (w *worker) owes(plan podlife.Plan) bool {
	stored := w.stored()
	return !w.facts.Gone && stored != nil && (w.report.busy || w.report.differs(&stored.Status, &plan.Status))
}

// stored is the pod as the API has it, nil if it has none of it: that of a static pod is its mirror.
func (w *worker) stored() *corev1.Pod {
	switch {
	case w.static:
		return w.mirror.own(w.uid)
	case w.facts.Pod.ResourceVersion == "": // known from the runtime only
		return nil
	}
	return w.facts.Pod
}

func (w *worker) inFlight(k podlife.Kind) bool {
	_, ok := w.facts.InFlight[podlife.Step{Kind: k}.Key()]
	return ok
}

// differs tells whether the API lacks this status.
func (r *reporter) differs(stored, want *corev1.PodStatus) bool {
	if apiequality.Semantic.DeepEqual(stored, want) {
		return false
	}
	return r.acked == nil || !apiequality.Semantic.DeepEqual(r.acked, want) || !apiequality.Semantic.DeepEqual(r.stored, stored)
}

// reported takes the API's answer: the pod as stored, or the error.
func (w *worker) reported(ctx context.Context, sent, got *corev1.Pod, err error) {
	r := &w.report
	r.busy = false
	switch {
	case err == nil:
		r.acked, r.stored, r.at, r.wait, r.retry = &sent.Status, &got.Status, w.m.now(), 0, time.Time{}
		w.setStored(got)
	case apierrors.IsConflict(err) && got != nil && got.UID == sent.UID:
		w.setStored(got) // decide on it, and write again
	case errors.Is(err, errGone), got != nil && got.UID != sent.UID:
		w.setStored(nil)
	default:
		if ctx.Err() == nil {
			klog.FromContext(ctx).V(1).Info("Status not written, it will be tried again", "err", err)
		}
		r.wait = min(max(2*r.wait, firstReportWait), maxReportWait)
		r.retry = w.m.now().Add(r.wait)
	}
}

// setStored takes the pod as the API has it now; nil: it has it no more.
func (w *worker) setStored(pod *corev1.Pod) {
	switch {
	case w.static:
		w.mirror.pod = pod
	case pod == nil:
		w.facts.Gone = true
	default:
		w.setPod(pod)
	}
}

// writeStatus writes a pod's status. With a conflict comes the pod as it is now; errGone tells that
// there is none.
func (m *Manager) writeStatus(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	pods := m.o.Client.CoreV1().Pods(pod.Namespace)
	got, err := pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	switch {
	case err == nil:
		got.ManagedFields = nil
		return got, nil
	case apierrors.IsConflict(err):
		now, getErr := pods.Get(ctx, pod.Name, metav1.GetOptions{})
		if getErr != nil {
			return nil, getErr
		}
		now.ManagedFields = nil
		return now, err
	}
	return nil, m.orGone(ctx, pod, err)
}

// errGone: the API does not have the pod any more.
var errGone = errors.New("the pod is gone from the API")

// orGone is errGone where a write failed because there is no such pod, and else its error. What is
// answered to a write is not enough: a server that has just started may say that it does not find
// what it has, for its admission knows nothing yet. A list without resourceVersion is consistent.
func (m *Manager) orGone(ctx context.Context, pod *corev1.Pod, err error) error {
	if !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return err
	}
	name := fields.OneTermEqualSelector("metadata.name", pod.Name).String()
	list, readErr := m.o.Client.CoreV1().Pods(pod.Namespace).List(ctx, metav1.ListOptions{FieldSelector: m.selector() + "," + name})
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	for i := range list.Items {
		if list.Items[i].UID == pod.UID {
			return err
		}
	}
	return errGone
}

// finalDelete stores the pod's last status, then deletes it by UID without grace.
func (m *Manager) finalDelete(ctx context.Context, pod *corev1.Pod, status corev1.PodStatus) error {
	last := withStatusOf(pod, &status)
	for try := 0; pod.ResourceVersion != "" && !apiequality.Semantic.DeepEqual(pod.Status, last.Status); try++ {
		got, err := m.writeStatus(ctx, last)
		switch {
		case err == nil:
			pod, last = got, got
		case errors.Is(err, errGone):
			return nil
		case apierrors.IsConflict(err) && got != nil && got.UID == pod.UID && try < 5:
			pod = got
			last = withStatusOf(got, &status)
		case apierrors.IsConflict(err) && got != nil && got.UID != pod.UID:
			return nil // another pod has the name already
		default:
			return fmt.Errorf("store the last status: %w", err)
		}
	}
	return m.deleteNow(ctx, pod)
}

// deleteNow deletes a pod by its UID and without grace; one that is gone already is fine, and so is
// another one that has its name.
func (m *Manager) deleteNow(ctx context.Context, pod *corev1.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	zero := int64(0)
	err := m.o.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &pod.UID},
	})
	if err = m.orGone(ctx, pod, err); errors.Is(err, errGone) {
		return nil
	}
	return err
}

// withStatusOf is the pod with another status; the rest is shared.
func withStatusOf(pod *corev1.Pod, status *corev1.PodStatus) *corev1.Pod {
	out := *pod
	out.Status = *status
	return &out
}

// newerVersion tells that a was stored after b.
func newerVersion(a, b *corev1.Pod) bool {
	va, errA := strconv.ParseUint(a.ResourceVersion, 10, 64)
	vb, errB := strconv.ParseUint(b.ResourceVersion, 10, 64)
	return errA == nil && errB == nil && va > vb
}
