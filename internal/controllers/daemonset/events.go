package daemonset

import (
	"fmt"
	"strings"
	"time"

	machine "github.com/everynode/everynode/internal/decide/daemonset"
	corev1 "k8s.io/api/core/v1"
)

// together says what several events of a reason come to: their number, and the last of them.
var together = map[string]string{
	"SuccessfulCreate":   "Created %[1]d more pods",
	"SuccessfulDelete":   "Deleted %[1]d more pods",
	"FailedCreate":       "%[1]d more pods could not be created, the last: %[2]s",
	"FailedDelete":       "%[1]d more pods could not be deleted, the last: %[2]s",
	"FailedDaemonPod":    "Found %[1]d more failed daemon pods, the last: %[2]s",
	"SucceededDaemonPod": "Found %[1]d more succeeded daemon pods, the last: %[2]s",
	"FailedPlacement":    "No room for %[1]d more pods yet, the last: %[2]s",
}

// event is one that has not been told.
type event struct {
	kind, format string
	args         []any
}

// note records an event on the DaemonSet, now or together with others like it.
func (c *Controller) note(d *daemon, kind, reason, format string, args ...any) {
	if d.events.Tell(reason, time.Now()) {
		c.o.Recorder.Eventf(d.ds, kind, reason, format, args...)
		return
	}
	if d.untold == nil {
		d.untold = map[string]event{}
	}
	d.untold[reason] = event{kind, format, args}
	d.tellAt = d.events.WakeUp()
}

// tellUntold records what has gathered.
func (c *Controller) tellUntold(d *daemon, now time.Time) {
	for _, u := range d.events.Due(now) {
		last := d.untold[u.Reason]
		message := fmt.Sprintf(last.format, last.args...)
		if u.Count > 1 {
			message = fmt.Sprintf(together[u.Reason], u.Count, message)
		}
		c.o.Recorder.Event(d.ds, last.kind, u.Reason, message)
		delete(d.untold, u.Reason)
	}
	d.tellAt = d.events.WakeUp()
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
