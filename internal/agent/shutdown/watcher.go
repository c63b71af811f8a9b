package shutdown

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"github.com/everynode/everynode/internal/decide/podlife"
	"github.com/everynode/everynode/internal/decide/shutdown"
	"github.com/everynode/everynode/internal/sleep"
)

// Words of stopped and of refused pods, and of the node's event, as the kubelet has them.
const (
	reason        = "Terminated"
	message       = "Pod was terminated in response to imminent node shutdown."
	refusedReason = "NodeShutdown"
	refused       = "Pod was rejected as the node is shutting down."
)

// Waits between attempts to follow the login manager.
const (
	firstWait = time.Second
	maxWait   = 30 * time.Second
)

// Logind is the machine's login manager, which carries shutdowns out.
type Logind interface {
	// Inhibit has shutdowns wait, for as long as is asked at most, until release is called.
	Inhibit(atMost time.Duration) (release func(), err error)
	// Shutdowns tells of shutdowns about to happen (true) and of those called off (false). It is
	// closed when the connection breaks.
	Shutdowns() (<-chan bool, error)
	Close()
}

// Pods are this node's.
type Pods interface {
	// Pods with their present status. They are not changed.
	Pods() []*corev1.Pod
	// Evict has a pod stop; ended is closed when it has.
	Evict(uid types.UID, e podlife.Eviction) (ended <-chan struct{})
}

// Options of a Watcher. Pods is required.
type Options struct {
	// Periods are the pods' times. None: no graceful shutdown.
	Periods []shutdown.Period
	Pods    Pods
	// Connect finds the login manager; nil and no error if this machine has none. Default: asks the
	// system bus.
	Connect func() (Logind, error)
	// Recorder gets the events about Node. Default: none are recorded.
	Recorder record.EventRecorder
	Node     *corev1.ObjectReference
	// Changed is told that ShuttingDown has changed.
	Changed func()
}

// Validate fills in defaults and reports the first required option that is missing.
func (o *Options) Validate() error {
	if o.Pods == nil {
		return errors.New("shutdown: Pods is not set")
	}
	if o.Connect == nil {
		o.Connect = SystemBus
	}
	if o.Recorder == nil {
		o.Recorder = &record.FakeRecorder{}
	}
	if o.Node == nil {
		o.Node = &corev1.ObjectReference{}
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	return nil
}

// Watcher waits for the machine's shutdown.
type Watcher struct {
	o    Options
	down atomic.Bool
}

// New checks the options and returns a Watcher that does nothing until Run.
func New(o Options) (*Watcher, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return &Watcher{o: o}, nil
}

// ShuttingDown tells that the machine is about to shut down.
func (w *Watcher) ShuttingDown() bool { return w.down.Load() }

// Refuse says why a machine that shuts down takes no pod; nil otherwise.
func (w *Watcher) Refuse(*corev1.Pod) *podlife.Verdict {
	if !w.ShuttingDown() {
		return nil
	}
	return &podlife.Verdict{Reason: refusedReason, Message: refused}
}

// Run watches until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	if len(w.o.Periods) == 0 {
		return nil
	}
	ctx = klog.NewContext(ctx, klog.FromContext(ctx).WithName("shutdown"))
	for wait, last := firstWait, ""; ctx.Err() == nil; wait = min(2*wait, maxWait) {
		began := time.Now()
		err := w.follow(ctx)
		if errors.Is(err, errNoLogind) {
			klog.FromContext(ctx).Info("This machine has no login manager (systemd-logind): its shutdown will not wait for pods")
			return nil
		}
		if err != nil && ctx.Err() == nil && err.Error() != last {
			klog.FromContext(ctx).Error(err, "The machine's shutdown would not wait for pods now; trying again")
			last = err.Error()
		}
		if time.Since(began) > maxWait {
			wait = firstWait
		}
		sleep.For(ctx, wait)
	}
	return nil
}

var errNoLogind = errors.New("no login manager")

// follow holds shutdowns up, and carries its part of them out, until the connection breaks.
func (w *Watcher) follow(ctx context.Context) error {
	logind, err := w.o.Connect()
	if err != nil {
		return err
	}
	if logind == nil {
		return errNoLogind
	}
	defer logind.Close()
	release, err := logind.Inhibit(shutdown.Total(w.o.Periods))
	if err != nil {
		return err
	}
	defer func() { release() }()
	shutdowns, err := logind.Shutdowns()
	if err != nil {
		return err
	}
	klog.FromContext(ctx).Info("The machine's shutdown waits for pods", "atMost", shutdown.Total(w.o.Periods))
	for {
		select {
		case <-ctx.Done():
			return nil
		case down, open := <-shutdowns:
			if !open {
				return errors.New("the login manager's connection broke")
			}
			w.down.Store(down)
			w.o.Changed()
			if down {
				w.event(ctx, "Shutdown manager detected shutdown event")
				w.stop(ctx)
				release()
				release = func() {}
				continue
			}
			w.event(ctx, "Shutdown manager detected shutdown cancellation")
			release()
			release = func() {}
			if release, err = logind.Inhibit(shutdown.Total(w.o.Periods)); err != nil {
				release = func() {}
				return fmt.Errorf("after a shutdown that was called off: %w", err)
			}
		}
	}
}

func (w *Watcher) event(ctx context.Context, text string) {
	klog.FromContext(ctx).Info(text)
	w.o.Recorder.Event(w.o.Node, corev1.EventTypeNormal, refusedReason, text)
}

// stop stops all pods, one group after the other.
func (w *Watcher) stop(ctx context.Context) {
	active := slices.DeleteFunc(slices.Clone(w.o.Pods.Pods()), func(p *corev1.Pod) bool {
		return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	})
	for _, group := range shutdown.Groups(w.o.Periods, active) {
		klog.FromContext(ctx).Info("Stopping pods before the shutdown", "pods", klog.KObjSlice(group.Pods), "seconds", group.Seconds)
		timeout, cancel := context.WithTimeout(ctx, time.Duration(group.Seconds)*time.Second)
		var ended []<-chan struct{}
		for _, pod := range group.Pods {
			ended = append(ended, w.o.Pods.Evict(pod.UID, podlife.Eviction{
				Verdict: podlife.Verdict{Reason: reason, Message: message}, Grace: ptr.To(group.Grace(pod)), Disruption: message, MaySucceed: true,
			}))
		}
		for _, e := range ended {
			select {
			case <-e:
			case <-timeout.Done():
			}
		}
		cancel()
	}
}
