package agent

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
)

// events sends events about pods and the node to the API server.
type events struct {
	broadcaster record.EventBroadcaster
	recorder    record.EventRecorder
}

// eventMemory bounds what is remembered to recognise repeated events; client-go's default of 4096
// entries would be a good part of an idle agent's memory.
const eventMemory = 512

// newEvents takes what is closed while the node is not busy starting many pods.
func newEvents(client kubernetes.Interface, nodeName string, calm func() <-chan struct{}) *events {
	b := record.NewBroadcasterWithCorrelatorOptions(record.CorrelatorOptions{LRUCacheSize: eventMemory})
	b.StartStructuredLogging(3)
	newPatientSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")}, calm).follow(b)
	return &events{broadcaster: b, recorder: b.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "kubelet", Host: nodeName})}
}

// eventPatience is how long an event may wait for the node to come to rest.
const eventPatience = 10 * time.Second

// patientSink lets events wait while many pods start at once: three a pod, they would be most of what
// is written then. Their order stays. A warning waits for nothing, and neither does what was recorded
// before it.
type patientSink struct {
	record.EventSink
	// calm is closed while there is no need to wait.
	calm func() <-chan struct{}

	mu sync.Mutex
	// warned is when the last warning was recorded; hurry is closed, and replaced, by each.
	warned time.Time
	hurry  chan struct{}
}

func newPatientSink(to record.EventSink, calm func() <-chan struct{}) *patientSink {
	return &patientSink{EventSink: to, calm: calm, hurry: make(chan struct{})}
}

// follow writes what b gets.
func (s *patientSink) follow(b record.EventBroadcaster) {
	b.StartEventWatcher(s.noticed)
	b.StartRecordingToSink(s)
}

// noticed is told of each event as it is recorded.
func (s *patientSink) noticed(e *corev1.Event) {
	if e.Type != corev1.EventTypeWarning {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.LastTimestamp.After(s.warned) {
		s.warned = e.LastTimestamp.Time
	}
	close(s.hurry)
	s.hurry = make(chan struct{})
}

// await returns when the event may be written.
func (s *patientSink) await(e *corev1.Event) {
	s.mu.Lock()
	warned, hurry := s.warned, s.hurry
	s.mu.Unlock()
	if e.Type == corev1.EventTypeWarning || !e.LastTimestamp.After(warned) {
		return
	}
	patience := time.NewTimer(time.Until(e.LastTimestamp.Add(eventPatience)))
	defer patience.Stop()
	select {
	case <-s.calm():
	case <-hurry:
	case <-patience.C:
	}
}

// Create implements record.EventSink, as do Update and Patch.
func (s *patientSink) Create(e *corev1.Event) (*corev1.Event, error) {
	s.await(e)
	return s.EventSink.Create(e)
}

func (s *patientSink) Update(e *corev1.Event) (*corev1.Event, error) {
	s.await(e)
	return s.EventSink.Update(e)
}

func (s *patientSink) Patch(e *corev1.Event, data []byte) (*corev1.Event, error) {
	s.await(e)
	return s.EventSink.Patch(e, data)
}
