package shutdown

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"

	"github.com/everynode/everynode/internal/decide/podlife"
	"github.com/everynode/everynode/internal/decide/shutdown"
)

// machine is a login manager and pods in memory; it writes down what happens when.
type machine struct {
	t       *testing.T
	began   time.Time
	events  *record.FakeRecorder
	watcher *Watcher

	mu        sync.Mutex
	story     []string
	pods      []*corev1.Pod
	takes     map[types.UID]time.Duration
	shutdowns chan bool
	absent    bool
	refuses   int // connections yet to fail
}

func (m *machine) note(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.story = append(m.story, time.Since(m.began).Round(time.Second).String()+" "+fmt.Sprintf(format, args...))
}

func (m *machine) connect() (Logind, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.absent {
		return nil, nil
	}
	if m.refuses > 0 {
		m.refuses--
		return nil, errors.New("not now")
	}
	m.shutdowns = make(chan bool, 1)
	return m, nil
}

func (m *machine) Inhibit(atMost time.Duration) (func(), error) {
	m.note("inhibited for %v", atMost)
	return func() { m.note("released") }, nil
}

func (m *machine) Shutdowns() (<-chan bool, error) { return m.shutdowns, nil }
func (m *machine) Close()                          { m.note("closed") }
func (m *machine) Pods() []*corev1.Pod             { return m.pods }

func (m *machine) Evict(uid types.UID, e podlife.Eviction) <-chan struct{} {
	m.note("%s stops within %d s: %s %s", uid, *e.Grace, e.Reason, e.Message)
	ended := make(chan struct{})
	time.AfterFunc(m.takes[uid], func() {
		m.note("%s has stopped", uid)
		close(ended)
	})
	return ended
}

func (m *machine) add(name string, takes time.Duration, daemon bool) {
	p := &corev1.Pod{}
	p.Name, p.UID, p.Spec.TerminationGracePeriodSeconds = name, types.UID(name), ptr.To[int64](30)
	if daemon {
		p.OwnerReferences = []metav1.OwnerReference{{Kind: "DaemonSet", Controller: ptr.To(true)}}
	}
	m.pods = append(m.pods, p)
	m.takes[p.UID] = takes
}

func run(t *testing.T, setUp, f func(m *machine)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := &machine{t: t, began: time.Now(), events: record.NewFakeRecorder(100), takes: map[types.UID]time.Duration{}}
		setUp(m)
		w, err := New(Options{
			Periods: shutdown.Split(20*time.Second, 5*time.Second), Pods: m, Connect: m.connect, Recorder: m.events,
			Changed: func() { m.note("shutting down: %v", m.watcher.ShuttingDown()) },
		})
		if err != nil {
			t.Fatal(err)
		}
		m.watcher = w
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = w.Run(ctx)
		}()
		synctest.Wait()
		f(m)
		cancel()
		<-done
	})
}

func (m *machine) want(story ...string) {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if diff := cmp.Diff(story, m.story); diff != "" {
		m.t.Errorf("what happened (-want +got):\n%s", diff)
	}
}

const why = ": Terminated Pod was terminated in response to imminent node shutdown."

// TestShutdown: daemons serve the others until these have stopped.
func TestShutdown(t *testing.T) {
	run(t, func(m *machine) {
		m.add("daemon", time.Second, true)
		m.add("web", 3*time.Second, false)
		m.add("slow", time.Hour, false)
		m.add("ended", 0, false)
		m.pods[3].Status.Phase = corev1.PodSucceeded
	}, func(m *machine) {
		if v := m.watcher.Refuse(m.pods[0]); v != nil {
			m.t.Errorf("refused: %+v", v)
		}
		m.shutdowns <- true
		time.Sleep(time.Minute)
		synctest.Wait()
		m.want(
			"0s inhibited for 20s", "0s shutting down: true",
			"0s web stops within 15 s"+why, "0s slow stops within 15 s"+why, "3s web has stopped",
			"15s daemon stops within 5 s"+why, "16s daemon has stopped", "16s released",
		)
		if v := m.watcher.Refuse(m.pods[0]); v == nil || v.Reason != "NodeShutdown" {
			m.t.Errorf("refused: %+v", v)
		}
		if e := <-m.events.Events; e != "Normal NodeShutdown Shutdown manager detected shutdown event" {
			m.t.Errorf("event %q", e)
		}
		// It is called off, and the next one is held up again.
		m.shutdowns <- false
		synctest.Wait()
		if m.watcher.ShuttingDown() {
			m.t.Error("still shutting down")
		}
		if last := m.story[len(m.story)-2:]; !strings.Contains(last[0], "shutting down: false") || !strings.Contains(last[1], "inhibited") {
			m.t.Errorf("at last %q", last)
		}
	})
}

// TestConnectionBreaks: the next one holds shutdowns up again.
func TestConnectionBreaks(t *testing.T) {
	run(t, func(m *machine) { m.refuses = 2 }, func(m *machine) {
		time.Sleep(10 * time.Second)
		close(m.shutdowns)
		time.Sleep(10 * time.Second)
		m.want("3s inhibited for 20s", "10s released", "10s closed", "14s inhibited for 20s")
	})
}

// TestNoLogind is no trouble.
func TestNoLogind(t *testing.T) {
	run(t, func(m *machine) { m.absent = true }, func(m *machine) {
		time.Sleep(time.Hour)
		m.want()
	})
}
