package daemonset

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/everynode/everynode/internal/decide/placement"
	"github.com/everynode/everynode/test/transcript"
)

// TestTranscripts runs the stories in testdata. Commands:
//
//	daemonset MAXUNAVAILABLE MAXSURGE [MINREADY]   start over (first line)
//	nodes NAME...           nodes join, and are seen
//	leave NAME              a node goes
//	taint NAME EFFECT       a node is tainted; "untaint NAME" undoes it
//	next [ROOM]             ask the machine; nothing of it is performed yet
//	perform [refused|lost]  what the machine asked for is done, or fails like that
//	see                     the watch catches up
//	ready NODE... | unready NODE... | fail NODE... | kill NODE...   what becomes of the pods there
//	stop                    containers that were asked to end have ended
//	image NAME              kubectl set image
//	wait DURATION           time passes
//	restart                 another leader takes over
//	status                  the counters
//	why NODE                the verdict
func TestTranscripts(t *testing.T) {
	transcript.Play(t, func() transcript.Command {
		var w *world
		return func(t *testing.T, command string, args []string) []string {
			t.Helper()
			if command != "daemonset" {
				return w.run(t, command, args)
			}
			ds := newDaemonSet(rolling(args[0], args[1]))
			if len(args) > 2 {
				d, err := time.ParseDuration(args[2])
				if err != nil {
					t.Fatal(err)
				}
				ds.Spec.MinReadySeconds = int32(d.Seconds())
			}
			w = newWorld(ds)
			return nil
		}
	})
}

func (w *world) run(t *testing.T, command string, args []string) []string {
	t.Helper()
	switch command {
	case "nodes":
		for _, name := range args {
			w.setNode(testNode(name))
		}
		w.deliverAll()
	case "leave":
		w.removeNode(args[0])
		w.deliverAll()
	case "taint", "untaint":
		n := w.nodes[args[0]].DeepCopy()
		n.Spec.Taints = nil
		if command == "taint" {
			n.Spec.Taints = []corev1.Taint{{Key: "dedicated", Value: "gpu", Effect: corev1.TaintEffect(args[1])}}
		}
		w.setNode(n)
		w.deliverAll()
	case "next":
		room := 1000
		if len(args) > 0 {
			if _, err := fmt.Sscan(args[0], &room); err != nil {
				t.Fatal(err)
			}
		}
		w.set.status.last = time.Time{} // time stands still here, and these are not about the pace of status writes
		return w.describe(w.next(room))
	case "perform":
		how := map[string]outcome{"": worked, "refused": refused, "lost": lost}[strings.Join(args, "")]
		w.perform(w.last, func() outcome { return how })
		w.last = Actions{}
	case "see":
		w.deliverAll()
	case "ready", "unready", "fail", "kill":
		w.eachPod(args, func(p *corev1.Pod) {
			switch command {
			case "kill":
				w.terminate(p.Name)
			case "fail":
				w.changePod(p.Name, phase(corev1.PodFailed))
			default:
				w.changePod(p.Name, ready(command == "ready", w.now))
			}
		})
	case "stop":
		for _, name := range slices.Sorted(maps.Keys(w.pods)) {
			if w.pods[name].DeletionTimestamp != nil {
				w.removePod(w.pods[name])
			}
		}
	case "image":
		w.update(args[0])
	case "wait":
		d, err := time.ParseDuration(args[0])
		if err != nil {
			t.Fatal(err)
		}
		w.now = w.now.Add(d)
	case "restart":
		w.restart()
	case "status":
		st := w.set.currentStatus()
		return []string{fmt.Sprintf("desired %d, current %d, ready %d, updated %d, available %d, unavailable %d, misscheduled %d",
			st.DesiredNumberScheduled, st.CurrentNumberScheduled, st.NumberReady, st.UpdatedNumberScheduled,
			st.NumberAvailable, st.NumberUnavailable, st.NumberMisscheduled)}
	case "why":
		v := w.set.Explain(args[0], w.now)
		line := string(v.State)
		if v.Placement.Outcome != placement.In {
			line += "; placement " + v.Placement.String()
		}
		return []string{line}
	default:
		t.Fatalf("unknown command %q", command)
	}
	return nil
}

// eachPod calls f for every pod on the nodes, sorted by name.
func (w *world) eachPod(nodes []string, f func(*corev1.Pod)) {
	for _, name := range slices.Sorted(maps.Keys(w.pods)) {
		if p := w.pods[name]; slices.Contains(nodes, TargetNode(p)) {
			f(p)
		}
	}
}

// describe writes actions for a reader: names of pods are left out, since they follow from the rest.
func (w *world) describe(a Actions) []string {
	var lines []string
	for _, c := range a.Creates {
		how := "for the scheduler"
		if c.Bound {
			how = "bound"
		}
		lines = append(lines, fmt.Sprintf("create on %s, %s, attempt %d (%s)", c.Node, how, c.Attempt, c.Reason))
	}
	for _, d := range a.Deletes {
		lines = append(lines, fmt.Sprintf("delete on %s (%s)", d.Node, d.Reason))
	}
	for _, c := range a.Checks {
		lines = append(lines, fmt.Sprintf("look up the pod on %s", c.Node))
	}
	for _, c := range a.Claims {
		lines = append(lines, fmt.Sprintf("change the owner of %s, release %v", c.Name, c.Release))
	}
	if a.More {
		lines = append(lines, "and more")
	}
	if !a.WakeUp.IsZero() {
		lines = append(lines, fmt.Sprintf("wake up in %v", a.WakeUp.Sub(w.now)))
	}
	if len(lines) == 0 {
		lines = append(lines, "nothing to do")
	}
	return lines
}
