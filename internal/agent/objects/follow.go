package objects

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/klog/v2"
)

// object is a ConfigMap or a Secret.
type object interface {
	runtime.Object
	metav1.Object
}

// item is one followed object.
//
//	unknown ──answer──> known (there, or not there) ──events──> known …
//	   └──error──> unknown, with the error; a caller's wait asks again
//
// Once known it stays known: while the server is away, pods keep what they have.
type item struct {
	ref Ref
	// pods, running and cancel are guarded by the cache's mutex.
	pods    map[types.UID]bool
	running bool
	cancel  context.CancelFunc

	// again asks follow to try at once instead of waiting out its delay.
	again chan struct{}

	mu    sync.Mutex
	known bool
	obj   object // nil if known not to exist
	err   error  // of the last attempt while unknown
	// news is closed, and replaced, after each attempt's outcome.
	news chan struct{}
}

func newItem(ref Ref) *item {
	return &item{ref: ref, pods: map[types.UID]bool{}, again: make(chan struct{}, 1), news: make(chan struct{})}
}

// wait returns the object once it is known, or the next error until then.
func (it *item) wait(ctx context.Context) (object, error) {
	it.mu.Lock()
	news, known, obj := it.news, it.known, it.obj
	it.mu.Unlock()
	if !known {
		it.hurry()
		select {
		case <-news:
		case <-ctx.Done():
			return nil, fmt.Errorf("no answer from the API server: %w", ctx.Err())
		}
		it.mu.Lock()
		defer it.mu.Unlock()
		if !it.known {
			return nil, it.err
		}
		obj = it.obj
	}
	if obj == nil {
		return nil, notFound(it.ref)
	}
	return obj, nil
}

func (it *item) hurry() {
	select {
	case it.again <- struct{}{}:
	default:
	}
}

// set records an answer and reports whether it is news.
func (it *item) set(obj object) bool {
	it.mu.Lock()
	defer it.mu.Unlock()
	changed := !it.known || (obj == nil) != (it.obj == nil) ||
		obj != nil && (obj.GetUID() != it.obj.GetUID() || obj.GetResourceVersion() != it.obj.GetResourceVersion())
	it.known, it.obj, it.err = true, obj, nil
	it.tell()
	return changed
}

func (it *item) fail(err error) {
	it.mu.Lock()
	defer it.mu.Unlock()
	it.err = err
	it.tell()
}

func (it *item) tell() {
	close(it.news)
	it.news = make(chan struct{})
}

// errSettled ends following: an immutable object needs no watch.
var errSettled = errors.New("the object is immutable")

// follow keeps one object up to date until ctx ends.
func (c *Cache) follow(ctx context.Context, it *item) {
	log := klog.FromContext(ctx).WithValues("object", it.ref)
	delay := firstDelay
	for ctx.Err() == nil {
		version, err := c.refresh(ctx, it)
		if err == nil {
			delay = firstDelay
			err = c.stream(ctx, it, version)
		}
		if errors.Is(err, errSettled) {
			c.settle(it)
			return
		}
		if err != nil && ctx.Err() == nil {
			it.fail(err)
			log.V(2).Info("Reading what a pod references failed; it is tried again", "err", err, "delay", delay)
		}
		delay = it.pause(ctx, delay)
	}
}

// settle notes that the item is no longer followed. The next pod that registers
// starts anew, in case the immutable object was replaced.
func (c *Cache) settle(it *item) {
	c.mu.Lock()
	defer c.mu.Unlock()
	it.running = false
	it.cancel()
}

const (
	firstDelay = 100 * time.Millisecond
	lastDelay  = 10 * time.Second
)

// pause sleeps about delay, less if someone waits, and returns the next delay.
func (it *item) pause(ctx context.Context, delay time.Duration) time.Duration {
	// Spread: all of a node's watches break at the same moment.
	timer := time.NewTimer(delay/2 + rand.N(delay))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-it.again:
	}
	return min(2*delay, lastDelay)
}

// refresh reads the object as it is now, and the version to watch from.
func (c *Cache) refresh(ctx context.Context, it *item) (version string, err error) {
	var obj object
	err = untilBound(ctx, func() error {
		obj, version, err = c.list(ctx, it.ref)
		return err
	})
	if err != nil {
		return "", err
	}
	c.take(it, obj)
	if immutable(obj) {
		return "", errSettled
	}
	return version, nil
}

// stream applies events from version on. It returns nil when the object must be
// read anew.
func (c *Cache) stream(ctx context.Context, it *item, version string) error {
	for {
		w, err := c.watch(ctx, it.ref, version)
		if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
			return nil
		}
		if err != nil {
			return err
		}
		began := time.Now()
		next, err := c.drain(ctx, it, w, version)
		if err != nil || ctx.Err() != nil || next == "" {
			return err
		}
		version = next
		// A server that closes at once must not be asked in a tight loop.
		if time.Since(began) < time.Second {
			it.pause(ctx, firstDelay)
		}
	}
}

// drain applies the events of one watch and returns the version it reached, or ""
// if that version cannot be watched from.
func (c *Cache) drain(ctx context.Context, it *item, w watch.Interface, version string) (string, error) {
	defer w.Stop()
	for {
		var event watch.Event
		var open bool
		select {
		case <-ctx.Done():
			return version, nil
		case event, open = <-w.ResultChan():
		}
		if !open {
			return version, nil
		}
		if event.Type == watch.Error {
			err := apierrors.FromObject(event.Object)
			if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
				return "", nil
			}
			return "", err
		}
		obj, ok := event.Object.(object)
		if !ok {
			return "", fmt.Errorf("the watch brought a %T", event.Object)
		}
		version = obj.GetResourceVersion()
		if event.Type == watch.Bookmark || obj.GetName() != it.ref.Name {
			continue
		}
		if event.Type == watch.Deleted {
			obj = nil
		}
		c.take(it, obj)
		if immutable(obj) {
			return "", errSettled
		}
	}
}

func (c *Cache) take(it *item, obj object) {
	if obj != nil {
		obj.SetManagedFields(nil) // nobody here reads them, and they can outweigh the data
	}
	if it.set(obj) {
		c.notify(it.ref)
	}
}

func immutable(obj object) bool {
	var flag *bool
	switch o := obj.(type) {
	case *corev1.ConfigMap:
		flag = o.Immutable
	case *corev1.Secret:
		flag = o.Immutable
	}
	return flag != nil && *flag
}

// list reads one object the only way that also tells from where to watch it.
func (c *Cache) list(ctx context.Context, ref Ref) (obj object, version string, err error) {
	o := metav1.ListOptions{FieldSelector: byName(ref.Name)}
	switch ref.Kind {
	case ConfigMap:
		l, err := c.client.CoreV1().ConfigMaps(ref.Namespace).List(ctx, o)
		if err != nil {
			return nil, "", err
		}
		for i := range l.Items {
			if l.Items[i].Name == ref.Name {
				obj = &l.Items[i]
			}
		}
		return obj, l.ResourceVersion, nil
	default:
		l, err := c.client.CoreV1().Secrets(ref.Namespace).List(ctx, o)
		if err != nil {
			return nil, "", err
		}
		for i := range l.Items {
			if l.Items[i].Name == ref.Name {
				obj = &l.Items[i]
			}
		}
		return obj, l.ResourceVersion, nil
	}
}

func (c *Cache) watch(ctx context.Context, ref Ref, version string) (watch.Interface, error) {
	// Long, and spread: each end costs a request, and many watches start together.
	timeout := int64(30*60) + rand.Int64N(30*60)
	o := metav1.ListOptions{
		FieldSelector: byName(ref.Name), ResourceVersion: version,
		AllowWatchBookmarks: true, TimeoutSeconds: &timeout,
	}
	if ref.Kind == ConfigMap {
		return c.client.CoreV1().ConfigMaps(ref.Namespace).Watch(ctx, o)
	}
	return c.client.CoreV1().Secrets(ref.Namespace).Watch(ctx, o)
}

func byName(name string) string { return fields.OneTermEqualSelector("metadata.name", name).String() }

// fetch reads an object that no registered pod references.
func (c *Cache) fetch(ctx context.Context, ref Ref) (object, error) {
	var obj object
	err := untilBound(ctx, func() (err error) {
		if ref.Kind == ConfigMap {
			obj, err = c.client.CoreV1().ConfigMaps(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
			return err
		}
		obj, err = c.client.CoreV1().Secrets(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
		return err
	})
	return obj, err
}

func notFound(ref Ref) error {
	resource := "secrets"
	if ref.Kind == ConfigMap {
		resource = "configmaps"
	}
	return apierrors.NewNotFound(schema.GroupResource{Resource: resource}, ref.Name)
}

// untilBound repeats f while the server may not yet know that a pod was bound to
// this node: a little while of Forbidden, or of not finding the pod.
func untilBound(ctx context.Context, f func() error) error {
	until := time.Now().Add(bindingLag)
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		err := f()
		if !lags(err) || time.Now().Add(pause).After(until) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

func lags(err error) bool {
	if apierrors.IsForbidden(err) {
		return true
	}
	var status apierrors.APIStatus
	if !apierrors.IsNotFound(err) || !errors.As(err, &status) || status.Status().Details == nil {
		return false
	}
	kind := status.Status().Details.Kind
	return kind == "pods" || kind == "pod"
}
