package explain

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/everynode/everynode/internal/decide/daemonset"
	"github.com/everynode/everynode/internal/decide/placement"
)

// Plan is what applying a manifest would do.
type Plan struct {
	DaemonSet string `json:"daemonSet"` // namespace/name
	Summary   string `json:"summary"`
	// Change is what would happen to the DaemonSet itself: created, changed or unchanged.
	Change Change `json:"change"`
	// Fields names what would change in it.
	Fields []string `json:"fields,omitempty"`
	// Revision is the one that pods would have; From that of the DaemonSet as it is.
	Revision string `json:"revision"`
	From     string `json:"from,omitempty"`
	// Never says why it could run on no node at all.
	Never string `json:"never,omitempty"`
	// Stuck says why not all nodes would get there, even if every pod comes up.
	Stuck    string     `json:"stuck,omitempty"`
	Warnings []string   `json:"warnings,omitempty"`
	Notes    []string   `json:"notes,omitempty"`
	Waves    []Wave     `json:"waves"`
	Nodes    []NodePlan `json:"nodes"`

	owner types.UID
	pods  map[string]*corev1.Pod // what there would be then, by name
}

// Change is what happens to the DaemonSet.
type Change string

// The changes.
const (
	Created   Change = "created"
	Changed   Change = "changed"
	Unchanged Change = "unchanged"
)

// Wave is a set of nodes that are worked on at the same time. The next wave begins when the pods of this one are
// available.
type Wave struct {
	Number  int      `json:"number"`
	Nodes   []string `json:"nodes"`
	Creates int      `json:"creates,omitempty"`
	Updates int      `json:"updates,omitempty"`
	Deletes int      `json:"deletes,omitempty"`
}

// Action is what would happen on a node.
type Action string

// The actions.
const (
	Create  Action = "create"
	Update  Action = "update" // the old pod goes, a new one comes
	Delete  Action = "delete"
	Keep    Action = "keep"    // the pod that is there stays
	Wait    Action = "wait"    // it should have a pod of the new revision, and would not get one
	Exclude Action = "exclude" // no pod is there, and none comes
)

// NodePlan is what would happen on one node.
type NodePlan struct {
	Node   string `json:"node"`
	Action Action `json:"action"`
	// Wave is when it would happen, from 1; 0 for never.
	Wave int `json:"wave,omitempty"`
	// Why is for people; the verdict carries the same for programs.
	Why       []string           `json:"why,omitempty"`
	Placement placement.Verdict  `json:"placement"`
	Room      []placement.Reason `json:"room,omitempty"`

	brief brief
}

// NewPlan rehearses what applying would do, from the facts, which it does not change.
func NewPlan(f *Facts, d *DryRun) *Plan {
	after := *f
	after.DaemonSet = d.After.DeepCopy()
	if d.Before == nil { // a dry run's UID is another each time
		after.DaemonSet.UID = types.UID("rehearsed-" + d.After.Namespace + "-" + d.After.Name)
	}
	r := rehearse(&after)
	p := &Plan{
		DaemonSet: d.After.Namespace + "/" + d.After.Name, Change: Created, Revision: r.revision,
		Warnings: warnings(d.After), Notes: slices.Clone(d.Notes),
	}
	if d.Before != nil {
		p.Change, p.Fields = Unchanged, changedFields(d.Before, d.After)
		if len(p.Fields) > 0 {
			p.Change = Changed
		}
		before := *f
		before.DaemonSet = d.Before
		p.From = before.Revision()
		if d.Before.DeletionTimestamp != nil {
			p.Notes = append(p.Notes, "the DaemonSet is being deleted: nothing is done until it is gone")
		}
	}
	if f.RoomUnknown != "" {
		p.Notes = append(p.Notes, f.RoomUnknown)
	}
	for _, name := range r.nodeNames() {
		p.Nodes = append(p.Nodes, r.report(name))
	}
	p.Never = r.never()
	p.Waves = wavesOf(p.Nodes)
	p.Stuck = r.stuck(p)
	p.Summary = p.summarize()
	p.owner, p.pods = after.DaemonSet.UID, r.pods
	return p
}

// Carry puts the DaemonSet's pods as they would be then into the facts of the next plan, so that several manifests
// do not each count on the same room.
func (p *Plan) Carry(to *Facts) {
	ours := func(pod *corev1.Pod) bool {
		o := metav1.GetControllerOfNoCopy(pod)
		return o != nil && o.UID == p.owner
	}
	to.Pods = slices.DeleteFunc(slices.Clone(to.Pods), ours)
	for _, name := range slices.Sorted(maps.Keys(p.pods)) {
		if ours(p.pods[name]) {
			to.Pods = append(to.Pods, p.pods[name])
		}
	}
}

// report reads off what happened on a node, and what is there in the end.
func (r *rehearsal) report(node string) NodePlan {
	v := r.set.Explain(node, r.now)
	n := NodePlan{Node: node, Placement: v.Placement}
	x := r.acted[node]
	if x == nil {
		x = &act{}
	}
	n.Wave = x.wave
	switch {
	case len(x.creates) > 0 && (len(x.deletes) > 0 || x.creates[0].Reason == daemonset.Surge),
		len(x.deletes) > 0 && v.Placement.Outcome == placement.In: // its successor waits for its end
		n.Action = Update
		n.explainUpdate(x)
	case len(x.creates) > 0:
		n.Action = Create
	case len(x.deletes) > 0:
		n.Action = Delete
	case v.State == daemonset.Out && len(v.Pods) == 0:
		n.Action = Exclude
	case v.State == daemonset.Updating, v.State == daemonset.Pending && len(v.Pods) == 0:
		n.Action = Wait
	default:
		n.Action = Keep
	}
	r.explainPlacement(&n)
	r.explainRoom(&n, x, &v)
	return n
}

func (n *NodePlan) explainUpdate(x *act) {
	for _, d := range x.deletes {
		switch d.Reason {
		case daemonset.Failed, daemonset.Succeeded:
			n.Why = append(n.Why, fmt.Sprintf("pod %s has ended", d.Name))
		case daemonset.Outdated, daemonset.Replaced:
		default:
			n.Why = append(n.Why, fmt.Sprintf("pod %s goes (%s)", d.Name, d.Reason))
		}
	}
}

func (r *rehearsal) explainPlacement(n *NodePlan) {
	if n.Placement.Outcome == placement.In {
		return
	}
	n.brief = r.excluded(n.Node, n.Placement.Reasons)
	for _, reason := range n.Placement.Reasons {
		n.Why = append(n.Why, reason.String())
	}
	switch {
	case n.Action == Keep:
		n.Why = append(n.Why, "the pod that is there stays, for now")
	case n.Action == Delete && n.Placement.Outcome == placement.Stay:
		n.Why = append(n.Why, "its pod is updated away and none comes back")
	}
}

// explainRoom says what the pod that was to come, or the node that was to have one, waits for.
func (r *rehearsal) explainRoom(n *NodePlan, x *act, v *daemonset.Verdict) {
	down := r.trouble(n.Node)
	n.Room = x.lacks
	switch {
	case len(n.Room) > 0:
		n.brief = short(n.Room)
		for _, reason := range n.Room {
			n.Why = append(n.Why, "its pod would wait: "+reason.String())
		}
		if class := r.facts.DaemonSet.Spec.Template.Spec.PriorityClassName; class != "" {
			n.Why = append(n.Why, "unless the scheduler makes room by preemption (priority class "+class+")")
		}
	case down != "" && (n.Action == Create || n.Action == Update || n.Action == Delete):
		n.brief = n.brief.or(r.word(n.Node))
		n.Why = append(n.Why, down)
	case n.Action == Wait && r.facts.DaemonSet.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType:
		n.brief = brief{key: "OnDelete: the old pod stays until someone deletes it"}
		n.Why = append(n.Why, n.brief.key)
	case n.Action == Wait:
		n.brief = brief{key: "the update does not get here"}
		n.Why = append(n.Why, "it keeps its old pod: the update does not get here")
		if down != "" {
			n.Why = append(n.Why, down)
		}
	}
	if len(n.Room) == 0 && n.Wave > 0 && slices.ContainsFunc(x.creates, func(c daemonset.Create) bool { return !c.Bound }) {
		for _, what := range r.template.NeedsScheduler() {
			n.Why = append(n.Why, "the scheduler has the last word: "+what)
		}
	}
	for _, p := range v.Pods {
		if pod := r.pods[p.Name]; pod != nil && p.Current && !p.Available && n.Action == Keep {
			for _, t := range troublesOf(pod) {
				n.Why = append(n.Why, t.line(r.now))
			}
		}
	}
}

// stuck names the nodes that hold up the rest.
func (r *rehearsal) stuck(p *Plan) string {
	if r.facts.DaemonSet.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType {
		return ""
	}
	waiting := 0
	var holding []string
	for i := range p.Nodes {
		n := &p.Nodes[i]
		if n.Action == Wait {
			waiting++
			continue
		}
		if n.Placement.Outcome != placement.In {
			continue
		}
		v := r.set.Explain(n.Node, r.now)
		if v.State != daemonset.In {
			why := n.brief.or("its pod is not available").key
			if n.brief.short != nil {
				why += " short by " + n.brief.short.Short.String()
			}
			holding = append(holding, fmt.Sprintf("%s (%s)", n.Node, why))
		}
	}
	if waiting == 0 {
		return ""
	}
	s := fmt.Sprintf("the update stops: %s would keep the old revision", count(waiting, "node"))
	if n := len(holding); n > 0 {
		if n > 3 {
			holding = append(holding[:3], fmt.Sprintf("%d more", n-3))
		}
		s += ", because the budget is used up by " + strings.Join(holding, ", ")
	}
	return s
}

func wavesOf(nodes []NodePlan) []Wave {
	byNumber := map[int]*Wave{}
	last := 0
	for i := range nodes {
		n := &nodes[i]
		if n.Wave == 0 {
			continue
		}
		w := byNumber[n.Wave]
		if w == nil {
			w = &Wave{Number: n.Wave}
			byNumber[n.Wave] = w
		}
		last = max(last, n.Wave)
		w.Nodes = append(w.Nodes, n.Node)
		switch n.Action {
		case Create:
			w.Creates++
		case Delete:
			w.Deletes++
		default:
			w.Updates++
		}
	}
	waves := []Wave{}
	number := map[int]int{} // cycles in which no node began are no waves
	for i := 1; i <= last; i++ {
		if w := byNumber[i]; w != nil {
			number[i] = len(waves) + 1
			w.Number = number[i]
			waves = append(waves, *w)
		}
	}
	for i := range nodes {
		nodes[i].Wave = number[nodes[i].Wave]
	}
	return waves
}

// changedFields names the parts of a DaemonSet that differ, as far as they matter to anybody but the server.
func changedFields(before, after *appsv1.DaemonSet) []string {
	var fields []string
	differ := func(name string, a, b any) {
		if !equality.Semantic.DeepEqual(a, b) {
			fields = append(fields, name)
		}
	}
	differ("metadata.labels", before.Labels, after.Labels)
	differ("metadata.annotations", written(before.Annotations), written(after.Annotations))
	differ("spec.template", before.Spec.Template, after.Spec.Template)
	differ("spec.updateStrategy", before.Spec.UpdateStrategy, after.Spec.UpdateStrategy)
	differ("spec.minReadySeconds", before.Spec.MinReadySeconds, after.Spec.MinReadySeconds)
	differ("spec.revisionHistoryLimit", before.Spec.RevisionHistoryLimit, after.Spec.RevisionHistoryLimit)
	differ("spec.selector", before.Spec.Selector, after.Spec.Selector)
	return fields
}

// written leaves out the annotations that programs keep there for themselves.
func written(annotations map[string]string) map[string]string {
	own := map[string]string{}
	for k, v := range annotations {
		if k != corev1.LastAppliedConfigAnnotation && k != appsv1.DeprecatedTemplateGeneration {
			own[k] = v
		}
	}
	return own
}

// summarize is "changed (spec.template); of 45 nodes: create 1, update 42, in 42 waves; 2 excluded by taint …".
func (p *Plan) summarize() string {
	done := map[Action]int{}
	excluded, waiting := groups{}, groups{}
	for i := range p.Nodes {
		n := &p.Nodes[i]
		done[n.Action]++
		switch {
		case n.Action == Exclude, n.Action == Delete && n.Placement.Outcome != placement.In:
			excluded.add(n.brief)
		case n.brief.key != "" && n.Placement.Outcome == placement.In:
			waiting.add(n.brief)
		}
	}
	var parts []string
	for _, action := range []Action{Create, Update, Delete, Keep} {
		if n := done[action]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", action, n))
		}
	}
	s := string(p.Change)
	if len(p.Fields) > 0 {
		s += " (" + strings.Join(p.Fields, ", ") + ")"
	}
	s += fmt.Sprintf("; of %s: ", count(len(p.Nodes), "node"))
	if len(parts) == 0 {
		parts = []string{"none gets a pod"}
	}
	s += strings.Join(parts, ", ")
	if n := len(p.Waves); n > 0 {
		s += ", in " + count(n, "wave")
	}
	var rest []string
	rest = append(rest, excluded.lines()...)
	for _, line := range waiting.lines() {
		n, why, _ := strings.Cut(line, " ")
		rest = append(rest, fmt.Sprintf("%s would wait: %s", n, why))
	}
	if len(rest) > 0 {
		s += "; " + strings.Join(rest, ", ")
	}
	return s
}
