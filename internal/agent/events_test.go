package agent

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
)

// notebook is a sink that notes when it got which event.
type notebook struct {
	began time.Time
	lines []string
}

func (n *notebook) Create(e *corev1.Event) (*corev1.Event, error) {
	n.lines = append(n.lines, fmt.Sprintf("%v %s", time.Since(n.began), e.Message))
	return e, nil
}
func (n *notebook) Update(e *corev1.Event) (*corev1.Event, error)          { return n.Create(e) }
func (n *notebook) Patch(e *corev1.Event, _ []byte) (*corev1.Event, error) { return n.Create(e) }

func TestEventsWaitForCalm(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(tell func(eventType, message string), calm chan struct{})
		want []string
	}{
		{"in order, once calm", func(tell func(string, string), calm chan struct{}) {
			tell(corev1.EventTypeNormal, "a")
			tell(corev1.EventTypeNormal, "b")
			time.Sleep(3 * time.Second)
			close(calm)
		}, []string{"3s a", "3s b"}},
		{"not for ever", func(tell func(string, string), _ chan struct{}) {
			tell(corev1.EventTypeNormal, "a")
			time.Sleep(time.Second)
			tell(corev1.EventTypeNormal, "b")
		}, []string{"10s a", "11s b"}},
		{"a warning waits for nothing, nor does what came before", func(tell func(string, string), _ chan struct{}) {
			tell(corev1.EventTypeNormal, "a")
			time.Sleep(time.Second)
			tell(corev1.EventTypeNormal, "b")
			time.Sleep(time.Second)
			tell(corev1.EventTypeWarning, "c")
			time.Sleep(time.Second)
			tell(corev1.EventTypeNormal, "d")
		}, []string{"2s a", "2s b", "2s c", "13s d"}},
		{"not at all in calm", func(tell func(string, string), calm chan struct{}) {
			close(calm)
			tell(corev1.EventTypeNormal, "a")
		}, []string{"0s a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calm, notes := make(chan struct{}), &notebook{began: time.Now()}
				b := record.NewBroadcaster()
				newPatientSink(notes, func() <-chan struct{} { return calm }).follow(b)
				r := b.NewRecorder(nil, corev1.EventSource{})
				c.do(func(eventType, message string) {
					r.Event(&corev1.ObjectReference{Name: message}, eventType, "Reason", message)
					synctest.Wait()
				}, calm)
				time.Sleep(time.Minute)
				b.Shutdown()
				synctest.Wait()
				if diff := cmp.Diff(c.want, notes.lines); diff != "" {
					t.Errorf("written (-want +got):\n%s", diff)
				}
			})
		})
	}
}
