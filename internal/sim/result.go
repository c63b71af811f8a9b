package sim

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Result is how a history went. Times are virtual, since the world began.
type Result struct {
	Seed      uint64 `json:"seed"`
	Nodes     int    `json:"nodes"`
	Faults    string `json:"faults"`
	DaemonSet string `json:"daemonSet"`
	Strategy  string `json:"strategy"`

	// Steps are the rollouts, in order: the first one, and each change of the template.
	Steps []*Step `json:"steps"`

	// AtRest is when nothing happened any more.
	AtRest metav1.Duration `json:"atRest"`
	// WorstUnavailable is the most nodes that, after the first rollout, had no available pod at a time, whatever
	// the cause; MostByUpdate is how many of them an update had taken down itself, which Budget bounds.
	WorstUnavailable   int             `json:"worstUnavailable"`
	WorstUnavailableAt metav1.Duration `json:"worstUnavailableAt"`
	MostByUpdate       int             `json:"mostByUpdate"`
	// Budget is how many nodes may be unavailable, or, while surging, have two pods.
	Budget int `json:"budget"`

	Writes     Writes         `json:"writes"`
	Mishaps    map[string]int `json:"mishaps,omitempty"`
	Events     int            `json:"events"`
	Invariants []Invariant    `json:"invariants"`
	// Violation is the promise that was broken; nil when all were kept.
	Violation *Violation `json:"violation,omitempty"`
}

// Writes counts what the controllers asked the API for, and it did.
type Writes struct {
	Creates  int `json:"creates"`
	Deletes  int `json:"deletes"`
	Claims   int `json:"claims"`
	Checks   int `json:"checks"`
	Statuses int `json:"statuses"`
}

// Step is one rollout.
type Step struct {
	Name  string          `json:"name"`
	Began metav1.Duration `json:"began"`
	// Took is how long it was until every node had an available pod of its revision; nil if that never was, for
	// instance because the next step came before.
	Took *metav1.Duration `json:"took,omitempty"`
	// Waves is how many times the budget goes into the nodes; 1 for a first rollout, which has no budget.
	Waves int        `json:"waves"`
	Marks []Progress `json:"progress"`

	began time.Time
	next  int // of marks
}

// Progress is how far a step was at a time.
type Progress struct {
	At          metav1.Duration `json:"at"`
	Wave        int             `json:"wave"`
	Percent     int             `json:"percent"`
	Desired     int             `json:"desired"`
	Updated     int             `json:"updated"`
	Available   int             `json:"available"`
	Unavailable int             `json:"unavailable"`
}

// Invariant is a promise, how often it was looked at, and whether it was kept.
type Invariant struct {
	Name   string `json:"name"`
	Checks int    `json:"checks"`
	Held   bool   `json:"held"`
}

// Violation is a promise that was broken, and what led to it.
type Violation struct {
	Invariant  string          `json:"invariant"`
	At         metav1.Duration `json:"at"`
	Message    string          `json:"message"`
	Transcript []string        `json:"transcript"`
}

// marks are the percentages of nodes at which progress is noted.
var marks = []int{10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 100}

func newResult(o *Options) *Result {
	ds := stored(o.DaemonSet)
	r := &Result{
		Seed: o.Seed, Nodes: o.Nodes, Faults: o.Faults.String(), DaemonSet: ds.Namespace + "/" + ds.Name,
		Strategy: strategyOf(ds), Mishaps: map[string]int{},
	}
	unavailable, surge := budget(ds, o.Nodes)
	r.Budget = max(unavailable, surge)
	for _, name := range []string{OnePerNode, BudgetKept, Converges, EmptyPlan} {
		r.Invariants = append(r.Invariants, Invariant{Name: name, Held: true})
	}
	return r
}

// strategyOf is the update strategy in a user's words.
func strategyOf(ds *appsv1.DaemonSet) string {
	st := ds.Spec.UpdateStrategy
	if st.RollingUpdate == nil {
		return string(st.Type)
	}
	if _, surge := budget(ds, 100); surge > 0 {
		return fmt.Sprintf("%s, maxSurge %s", st.Type, st.RollingUpdate.MaxSurge)
	}
	return fmt.Sprintf("%s, maxUnavailable %s", st.Type, st.RollingUpdate.MaxUnavailable)
}

func (w *world) since(t time.Time) metav1.Duration {
	return metav1.Duration{Duration: roundedDown(w.now.Sub(t))}
}

// startStep begins to follow a rollout.
func (w *world) startStep(name string) {
	s := &Step{Name: name, Began: w.since(epoch), Waves: 1, began: w.now}
	if unavailable, surge := budget(w.store.ds, w.truth.desired); len(w.result.Steps) > 0 && max(unavailable, surge) > 0 {
		s.Waves = (w.truth.desired + max(unavailable, surge) - 1) / max(unavailable, surge)
	}
	w.result.Steps = append(w.result.Steps, s)
	w.progress()
}

// progress follows the current step, at every change. It costs next to nothing but at a mark.
func (w *world) progress() {
	if len(w.result.Steps) == 0 {
		return
	}
	t, s := w.truth, w.result.Steps[len(w.result.Steps)-1]
	if (len(w.result.Steps) > 1 || w.result.Steps[0].Took != nil) && t.desired-t.available > w.result.WorstUnavailable {
		w.result.WorstUnavailable, w.result.WorstUnavailableAt = t.desired-t.available, w.since(epoch)
	}
	for s.next < len(marks) && t.desired > 0 && t.updated*100 >= t.desired*marks[s.next] {
		last := s.next == len(marks)-1 || t.updated*100 < t.desired*marks[s.next+1]
		if last {
			s.Marks = append(s.Marks, w.mark(s))
		}
		if s.next++; s.next == len(marks) {
			took := w.since(s.began)
			s.Took = &took
			w.stepDone()
		}
	}
}

func (w *world) mark(s *Step) Progress {
	t := w.truth
	wave := 1
	if t.desired > 0 {
		wave = max(1, (t.updated*s.Waves+t.desired-1)/t.desired)
	}
	return Progress{
		At: w.since(s.began), Wave: wave, Percent: marks[s.next], Desired: t.desired, Updated: t.updated,
		Available: t.available, Unavailable: t.desired - t.available,
	}
}

// stepDone plans the user's update when the first rollout is done.
func (w *world) stepDone() {
	if len(w.result.Steps) == 1 {
		w.in(beforeUpdate, w.updateOnce)
	}
}

// checked counts that a promise was looked at.
func (w *world) checked(invariant string) { w.invariant(invariant).Checks++ }

func (w *world) invariant(name string) *Invariant {
	for i := range w.result.Invariants {
		if w.result.Invariants[i].Name == name {
			return &w.result.Invariants[i]
		}
	}
	panic("sim: unknown invariant " + name)
}

// violate notes the first promise that is broken, on which nodes; the world ends with it.
func (w *world) violate(invariant string, nodes []string, format string, args ...any) {
	if w.violation != nil {
		return
	}
	w.invariant(invariant).Held = false
	w.violation = &Violation{
		Invariant: invariant, At: w.since(epoch), Message: fmt.Sprintf(format, args...), Transcript: w.transcript.about(nodes),
	}
}

func (w *world) finish() {
	w.result.AtRest = w.since(epoch)
	w.result.Events = w.handled
	w.result.Violation = w.violation
}
