package daemonset

import (
	"fmt"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
)

// Options say what a Controller works with.
type Options struct {
	// Client reads live objects, patches owners and writes ControllerRevisions. Required.
	Client kubernetes.Interface
	// Sources are listed and watched. Default: ClientSources(Client).
	Sources *Sources
	// Writer performs pod and status writes. Default: ClientWriter{Client}.
	Writer Writer
	// Room is the ledger of the nodes' room, for who shares it. Default: one of the controller's own.
	Room *Room
	// Recorder takes the events that users see in kubectl describe. Default: events are dropped.
	Recorder record.EventRecorder
	// Parallelism bounds the writes in flight at any moment. Default 64.
	Parallelism int
	// UnseenAfter is how long one of our own writes may stay unseen by the watch before it is
	// looked up. Default 10s.
	UnseenAfter time.Duration
}

// Validate says which required option is missing or out of range.
func (o *Options) Validate() error {
	switch {
	case o.Client == nil:
		return fmt.Errorf("daemonset controller: Client is required")
	case o.Parallelism < 0 || o.Parallelism > 4096:
		return fmt.Errorf("daemonset controller: Parallelism is %d, want 1 to 4096 (0: the default)", o.Parallelism)
	case o.UnseenAfter < 0:
		return fmt.Errorf("daemonset controller: UnseenAfter is %v, want a positive duration (0: the default)", o.UnseenAfter)
	}
	return nil
}

// withDefaults returns o with every optional field set.
func (o Options) withDefaults() Options {
	if o.Sources == nil {
		s := ClientSources(o.Client)
		o.Sources = &s
	}
	if o.Writer == nil {
		o.Writer = ClientWriter{Client: o.Client}
	}
	if o.Recorder == nil {
		o.Recorder = &record.FakeRecorder{} // no channel: drops
	}
	if o.Room == nil {
		o.Room = NewRoom()
	}
	if o.Parallelism == 0 {
		o.Parallelism = 64
	}
	if o.UnseenAfter == 0 {
		o.UnseenAfter = 10 * time.Second
	}
	return o
}
