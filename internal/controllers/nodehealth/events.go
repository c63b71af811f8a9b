package nodehealth

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	machine "github.com/everynode/everynode/internal/decide/nodehealth"
)

// Events are for a person who looks at one node or pod. When thousands are lost at once, an event for each of them
// would be what the server drowns in.
const (
	eventBurst = 100
	eventEvery = time.Second
)

// eventBudget is what may still be said.
type eventBudget struct {
	mu    sync.Mutex
	spent time.Time // when the budget will be full again
}

func (b *eventBudget) spend(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.spent.Before(now) {
		b.spent = now
	}
	if b.spent.Sub(now) > (eventBurst-1)*eventEvery {
		return false
	}
	b.spent = b.spent.Add(eventEvery)
	return true
}

// note records an event.
func (c *Controller) note(about *corev1.ObjectReference, kind, reason, format string, args ...any) {
	if c.events.spend(time.Now()) {
		c.o.Recorder.Eventf(about, kind, reason, format, args...)
	}
}

func nodeRef(name string, uid types.UID) *corev1.ObjectReference {
	return &corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: name, UID: uid}
}

func podRef(x machine.Pod) *corev1.ObjectReference {
	return &corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: x.Namespace, Name: x.Name, UID: x.UID}
}
