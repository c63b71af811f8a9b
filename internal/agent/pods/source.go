package pods

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/sleep"
)

// Waits between attempts to reach the API server. The longest is short, so that a
// restarted server finds its agents back at once.
const (
	firstWait = 50 * time.Millisecond
	maxWait   = 2 * time.Second
	// watchFor bounds one watch; the next goes on where it ended.
	watchFor = 10 * time.Minute
)

// followPods keeps the workers in step with the API until ctx ends: one full list,
// read consistently and never from a cache that lags, then a watch from there.
func (m *Manager) followPods(ctx context.Context) {
	wait, version := firstWait, ""
	for ctx.Err() == nil {
		var err error
		if version == "" {
			version, err = m.list(ctx)
		}
		if err == nil {
			version, err = m.watch(ctx, version, func() { wait = firstWait })
		}
		if err == nil || ctx.Err() != nil {
			continue
		}
		klog.FromContext(ctx).V(1).Info("Pods of this node cannot be followed, trying again", "err", err, "wait", wait)
		sleep.For(ctx, wait/2+rand.N(wait))
		wait = min(2*wait, maxWait)
	}
}

// list reads all pods of this node and what the runtime has, and sets the workers to it.
func (m *Manager) list(ctx context.Context) (version string, err error) {
	have, err := m.inventory(ctx)
	if err != nil {
		return "", fmt.Errorf("list the runtime's pods: %w", err)
	}
	list, err := m.o.Client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: m.selector()}) // no resourceVersion: consistent
	if err != nil {
		m.server.missed(err)
		return "", fmt.Errorf("list pods: %w", err)
	}
	pods := make([]*corev1.Pod, 0, len(list.Items))
	for i := range list.Items {
		list.Items[i].ManagedFields = nil
		pods = append(pods, &list.Items[i])
	}
	m.replace(ctx, pods, have)
	return list.ResourceVersion, nil
}

func (m *Manager) selector() string {
	return fields.OneTermEqualSelector("spec.nodeName", m.o.NodeName).String()
}

// watch follows changes from version on and returns where it got to; "" if a new
// list is needed.
func (m *Manager) watch(ctx context.Context, version string, alive func()) (string, error) {
	seconds := int64(watchFor/time.Second) + rand.Int64N(60)
	w, err := m.o.Client.CoreV1().Pods("").Watch(ctx, metav1.ListOptions{
		FieldSelector: m.selector(), ResourceVersion: version, AllowWatchBookmarks: true, TimeoutSeconds: &seconds,
	})
	if err != nil {
		if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || apierrors.IsInvalid(err) {
			version = ""
		}
		return version, fmt.Errorf("watch pods: %w", err)
	}
	defer w.Stop()
	began := time.Now()
	for {
		select {
		case <-ctx.Done():
			return version, nil
		case e, open := <-w.ResultChan():
			if !open {
				if time.Since(began) < time.Second {
					return version, errShortWatch
				}
				return version, nil
			}
			alive()
			next, err := m.apply(ctx, e)
			if err != nil {
				return "", err
			}
			version = next
		}
	}
}

var errShortWatch = errors.New("the watch of pods was closed at once")

// apply takes one event and returns its resourceVersion.
func (m *Manager) apply(ctx context.Context, e watch.Event) (string, error) {
	if e.Type == watch.Error {
		return "", fmt.Errorf("watch pods: %w", apierrors.FromObject(e.Object))
	}
	pod, ok := e.Object.(*corev1.Pod)
	if !ok {
		return "", fmt.Errorf("watch pods: unexpected %T", e.Object)
	}
	pod.ManagedFields = nil
	switch e.Type {
	case watch.Added, watch.Modified:
		m.take(ctx, pod)
	case watch.Deleted:
		m.gone(pod)
	}
	return pod.ResourceVersion, nil
}
