package nodehealth

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/everynode/everynode/test/transcript"
)

// TestTranscripts runs the stories in testdata: what came of a command has the time since the start in front. Commands:
//
//	join NAME...              nodes register, with agents that renew their leases; they say nothing else yet
//	reserve NAME              a name is reserved: Ready=False for the reason Joining, no lease
//	ready NAME... | notready NAME...   what nodes say of themselves
//	says NAME CONDITION STATUS         one more condition
//	silent NAME... | back NAME...      their agents stop, or renew again and report Ready
//	renews NAME...            agents renew again, and report nothing
//	cordon NAME | uncordon NAME
//	taint NAME KEY[=VALUE]:EFFECT      a user taints; "untaint NAME KEY:EFFECT" undoes it
//	pod NAME NODE SECONDS     a ready pod that tolerates not-ready, unreachable and maintenance that long; "forever", or "-" for not at all
//	why NODE                  what can be told of the node from outside
//	delete NODE               the node is deleted
//	refuse | accept           writes fail from now on, or work again
//	show WORD                 only lines with that word from now on
//	restart                   another leader takes over
//	sleep DURATION            the process does not run meanwhile
//	wait DURATION             time passes
func TestTranscripts(t *testing.T) {
	transcript.Play(t, func() transcript.Command {
		w := newWorld(Options{})
		return func(t *testing.T, command string, args []string) []string {
			t.Helper()
			w.run(t, command, args)
			if command != "sleep" && command != "refuse" {
				w.wait(t, 0)
			}
			lines := w.log
			w.log = nil
			return lines
		}
	})
}

func (w *world) run(t *testing.T, command string, args []string) {
	t.Helper()
	forAll := func(f func(name string)) {
		for _, name := range expand(args) {
			f(name)
		}
	}
	switch command {
	case "join":
		forAll(func(n string) { w.set.SetNode(w.changeNode(n, nil), w.now); w.alive[n] = true; w.renew(n) })
	case "reserve":
		w.set.SetNode(w.changeNode(args[0], setCondition(corev1.NodeReady, corev1.ConditionFalse, reasonJoining, w.now)), w.now)
	case "ready":
		forAll(func(n string) { w.becomes(n, corev1.ConditionTrue) })
	case "notready":
		forAll(func(n string) { w.becomes(n, corev1.ConditionFalse) })
	case "says":
		w.report(args[0], setCondition(corev1.NodeConditionType(args[1]), corev1.ConditionStatus(args[2]), "Kubelet", w.now))
	case "silent":
		forAll(func(n string) { delete(w.alive, n) })
	case "renews":
		forAll(func(n string) { w.alive[n] = true; w.renew(n) })
	case "back":
		forAll(func(n string) { w.alive[n] = true; w.renew(n); w.becomes(n, corev1.ConditionTrue) })
	case "cordon", "uncordon":
		w.set.SetNode(w.changeNode(args[0], func(n *corev1.Node) { n.Spec.Unschedulable = command == "cordon" }), w.now)
	case "taint", "untaint":
		w.userTaint(args[0], args[1], command == "taint")
	case "pod":
		w.setPod(w.pod(args[0], args[1], args[2]))
	case "why":
		h := Explain(w.nodes[args[0]], w.renewed[args[0]])
		words := []string{h.Word()}
		if trouble := h.Trouble(w.now); trouble != "" {
			words[0] = trouble
		}
		for _, taint := range h.Taints {
			words = append(words, strings.TrimPrefix(taint.ToString(), "node.kubernetes.io/"))
		}
		w.say("%s: %s", args[0], strings.Join(words, "; "))
	case "delete":
		n := w.nodes[args[0]]
		delete(w.nodes, args[0])
		delete(w.alive, args[0])
		w.set.RemoveNode(n.Name, n.UID)
	case "refuse", "accept":
		w.refuse = command == "refuse"
	case "show":
		w.only = args[0]
	case "restart":
		w.restart()
	case "sleep", "wait":
		d, err := time.ParseDuration(args[0])
		if err != nil {
			t.Fatal(err)
		}
		if command == "sleep" {
			w.now = w.now.Add(d)
			return
		}
		w.wait(t, d)
	default:
		t.Fatalf("unknown command %q", command)
	}
}

// expand writes n1..n4 out.
func expand(args []string) []string {
	var names []string
	for _, a := range args {
		var from, to int
		if _, err := fmt.Sscanf(a, "n%d..n%d", &from, &to); err != nil {
			names = append(names, a)
			continue
		}
		for i := from; i <= to; i++ {
			names = append(names, fmt.Sprintf("n%d", i))
		}
	}
	return names
}

func (w *world) userTaint(node, taint string, add bool) {
	what, effect, _ := strings.Cut(taint, ":")
	key, value, _ := strings.Cut(what, "=")
	w.set.SetNode(w.changeNode(node, func(n *corev1.Node) {
		var kept []corev1.Taint
		for _, t := range n.Spec.Taints {
			if t.Key != key || string(t.Effect) != effect {
				kept = append(kept, t)
			}
		}
		if add {
			kept = append(kept, corev1.Taint{Key: key, Value: value, Effect: corev1.TaintEffect(effect)})
		}
		n.Spec.Taints = kept
	}), w.now)
}
