package daemonset

import (
	"strings"
	"time"

	machine "github.com/everynode/everynode/internal/decide/daemonset"
	corev1 "k8s.io/api/core/v1"
)

// Events are for a person who looks at one DaemonSet: the first of a kind are worth showing, the ten thousandth
// is not worth a write.
const (
	eventBurst = 25
	eventEvery = 30 * time.Second
)

// eventBudget is what a DaemonSet may still say, by reason.
type eventBudget map[string]*allowance

type allowance struct {
	left  float64
	since time.Time
}

func (b *eventBudget) spend(reason string, now time.Time) bool {
	if *b == nil {
		*b = eventBudget{}
	}
	a := (*b)[reason]
	if a == nil {
		a = &allowance{left: eventBurst, since: now}
		(*b)[reason] = a
	}
	a.left = min(eventBurst, a.left+float64(now.Sub(a.since))/float64(eventEvery))
	a.since = now
	if a.left < 1 {
		return false
	}
	a.left--
	return true
}

// note records an event on the DaemonSet.
func (c *Controller) note(d *daemon, kind, reason, format string, args ...any) {
	if d.events.spend(reason, time.Now()) {
		c.o.Recorder.Eventf(d.ds, kind, reason, format, args...)
	}
}

// notePodEnd says that a pod which ended is about to be replaced.
func (c *Controller) notePodEnd(d *daemon, x machine.Delete) {
	switch x.Reason {
	case machine.Failed:
		c.note(d, corev1.EventTypeWarning, "FailedDaemonPod",
			"Found failed daemon pod %s/%s on node %s, will try to kill it", d.ds.Namespace, x.Name, x.Node)
	case machine.Succeeded:
		c.note(d, corev1.EventTypeNormal, "SucceededDaemonPod",
			"Found succeeded daemon pod %s/%s on node %s, will try to delete it", d.ds.Namespace, x.Name, x.Node)
	}
}

// noteNoRoom says why a pod could not be created bound, if that is for want of room.
func (c *Controller) noteNoRoom(d *daemon, x machine.Create) {
	if x.Bound {
		return
	}
	lacks := d.set.Lacks(x.Node)
	if len(lacks) == 0 {
		return
	}
	words := make([]string, len(lacks))
	for i, r := range lacks {
		words[i] = r.String()
	}
	if len(d.set.TooSmall(x.Node)) > 0 {
		words = append(words, "the node would be too small even if it were empty")
	}
	c.note(d, corev1.EventTypeWarning, "FailedPlacement",
		"No room on node %s for pod %s yet: %s", x.Node, x.Name, strings.Join(words, "; "))
}

// noteContradiction says that a template can run nowhere, whatever nodes there are. The API accepts it.
func (c *Controller) noteContradiction(d *daemon) {
	if clash := d.set.Contradiction(); clash != "" {
		c.note(d, corev1.EventTypeWarning, "FailedPlacement", "It can never run on any node: %s", clash)
	}
}
