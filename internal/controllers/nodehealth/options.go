package nodehealth

import (
	"fmt"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"

	machine "github.com/everynode/everynode/internal/decide/nodehealth"
)

// Options say what a Controller works with.
type Options struct {
	// Client patches nodes and pods, and deletes pods. Required.
	Client kubernetes.Interface
	// Informers is the factory whose Node, Lease and Pod informers are watched. New asks it for them; whoever made
	// it starts it, before Run or beside it. Required.
	Informers informers.SharedInformerFactory
	// Recorder takes the events that users see in kubectl describe. Default: events are dropped.
	Recorder record.EventRecorder
	// Patience is how long nodes may be silent, and how fast they are emptied. Its Pods is set by New.
	Patience machine.Options
	// Parallelism bounds the writes in flight at any moment. Default 32.
	Parallelism int
}

// Validate says which option is missing or out of range.
func (o *Options) Validate() error {
	switch {
	case o.Client == nil:
		return fmt.Errorf("node health controller: Client is required")
	case o.Informers == nil:
		return fmt.Errorf("node health controller: Informers is required")
	case o.Parallelism < 0 || o.Parallelism > 4096:
		return fmt.Errorf("node health controller: Parallelism is %d, want 1 to 4096 (0: the default)", o.Parallelism)
	}
	return nil
}

func (o Options) withDefaults() Options {
	if o.Recorder == nil {
		o.Recorder = &record.FakeRecorder{} // no channel: drops
	}
	if o.Parallelism == 0 {
		o.Parallelism = 32
	}
	return o
}
