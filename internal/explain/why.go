package explain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/everynode/everynode/internal/decide/daemonset"
	"github.com/everynode/everynode/internal/decide/placement"
)

// Report is the answer to why.
type Report struct {
	DaemonSet string `json:"daemonSet"` // namespace/name
	Revision  string `json:"revision"`
	// Summary is one line for all of it.
	Summary string `json:"summary"`
	// Never says why it can run on no node at all, as things are.
	Never string `json:"never,omitempty"`
	// Warnings are about the DaemonSet itself; Notes about what could not be found out.
	Warnings []string `json:"warnings,omitempty"`
	Notes    []string `json:"notes,omitempty"`
	Counts   Counts   `json:"counts"`
	// Nodes are sorted by what needs attention: failing, pending, updating, out, in; then by name.
	Nodes []NodeReport `json:"nodes"`
}

// Counts are how many nodes are in which state.
type Counts struct {
	Nodes    int `json:"nodes"`
	In       int `json:"in"`
	Out      int `json:"out"`
	Pending  int `json:"pending"`
	Updating int `json:"updating"`
	Failing  int `json:"failing"`
}

// NodeReport is the machine's verdict on a node, and what its pods say.
type NodeReport struct {
	daemonset.Verdict
	// Why is for people: one sentence a reason.
	Why      []string  `json:"why,omitempty"`
	Troubles []Trouble `json:"troubles,omitempty"`

	brief    brief            // its group in the summary
	restarts map[string]int32 // by pod
}

// Settled says whether everything is as it should be: every node that should have the DaemonSet has it, and
// there is one.
func (r *Report) Settled() bool {
	return r.Never == "" && r.Counts.In > 0 && r.Counts.In+r.Counts.Out == r.Counts.Nodes
}

// Why explains all nodes of the facts.
func Why(f *Facts) *Report {
	v := f.view()
	r := &Report{DaemonSet: f.DaemonSet.Namespace + "/" + f.DaemonSet.Name, Revision: v.revision}
	for _, name := range v.nodeNames() {
		n := v.explain(name)
		r.Counts.add(n.State)
		r.Nodes = append(r.Nodes, n)
	}
	slices.SortStableFunc(r.Nodes, func(a, b NodeReport) int { return rank(a.State) - rank(b.State) })
	r.Never = v.never()
	r.Warnings = warnings(f.DaemonSet)
	if f.RoomUnknown != "" {
		r.Notes = append(r.Notes, f.RoomUnknown)
	}
	if f.DaemonSet.DeletionTimestamp != nil {
		r.Notes = append(r.Notes, "the DaemonSet is being deleted: nothing is created any more")
	} else if f.DaemonSet.Status.ObservedGeneration < f.DaemonSet.Generation {
		r.Notes = append(r.Notes, "the controller has not seen the latest change of the DaemonSet yet")
	}
	r.Summary = r.summarize()
	return r
}

// order is what needs attention first.
var order = []daemonset.State{daemonset.Failing, daemonset.Pending, daemonset.Updating, daemonset.Out, daemonset.In}

func rank(s daemonset.State) int { return slices.Index(order, s) }

func (c *Counts) add(s daemonset.State) {
	c.Nodes++
	*c.of(s)++
}

func (c *Counts) of(s daemonset.State) *int {
	switch s {
	case daemonset.In:
		return &c.In
	case daemonset.Pending:
		return &c.Pending
	case daemonset.Updating:
		return &c.Updating
	case daemonset.Failing:
		return &c.Failing
	default:
		return &c.Out
	}
}

// explain adds what the pods say to the machine's verdict.
func (v *view) explain(node string) NodeReport {
	n := NodeReport{Verdict: v.set.Explain(node, v.facts.Now), restarts: map[string]int32{}}
	v.readTroubles(&n)
	switch n.State {
	case daemonset.Out:
		v.explainOut(&n)
	case daemonset.Pending:
		v.explainPending(&n)
	case daemonset.Updating:
		v.explainUpdating(&n)
	case daemonset.Failing:
		v.explainFailing(&n)
	}
	return n
}

// readTroubles notes what is wrong with the node's pods. A pod of the current revision that keeps failing makes
// the node failing: the machine, which has not watched it, cannot know. So does an old one that is not on its
// way out.
func (v *view) readTroubles(n *NodeReport) {
	for _, fact := range n.Pods {
		p := v.pods[fact.Name]
		n.restarts[fact.Name] = restarts(p)
		if p == nil || fact.Available || fact.Terminating {
			continue
		}
		for _, t := range troublesOf(p) {
			n.Troubles = append(n.Troubles, t)
			if t.Fails && n.State != daemonset.Out {
				n.State = daemonset.Failing
			}
		}
	}
}

func (v *view) explainOut(n *NodeReport) {
	for _, r := range n.Placement.Reasons {
		n.Why = append(n.Why, r.String())
	}
	n.brief = v.excluded(n.Node, n.Placement.Reasons)
	if down := v.trouble(n.Node); down != "" {
		n.Why = append(n.Why, down)
	}
	for _, p := range n.Pods {
		switch {
		case p.Terminating:
			n.Why = append(n.Why, v.going(p.Name))
		case n.Placement.Outcome == placement.Stay:
			n.Why = append(n.Why, fmt.Sprintf("pod %s was there before and stays", p.Name))
		default:
			n.Why = append(n.Why, fmt.Sprintf("pod %s is still there and has to go", p.Name))
		}
	}
}

func (v *view) explainPending(n *NodeReport) {
	pod := waiting(n)
	switch {
	case pod == nil:
		v.explainMissing(n)
	case !pod.Bound:
		v.explainUnbound(n)
	default:
		v.explainStarting(n, pod)
	}
}

// waiting returns the pod that a pending node waits for, nil if it has none.
func waiting(n *NodeReport) *daemonset.PodFact {
	for i := range n.Pods {
		if p := &n.Pods[i]; !p.Ended && !p.Terminating {
			return p
		}
	}
	return nil
}

// explainMissing is for nodes without a pod: what the node lacks, or else why none could be created.
func (v *view) explainMissing(n *NodeReport) {
	n.Room = v.lacks(n.Node)
	v.explainRoom(n)
	if len(n.Room) > 0 {
		return
	}
	if down := v.trouble(n.Node); down != "" {
		n.Why = append(n.Why, down)
	}
	if len(v.facts.Events) > 0 {
		e := v.facts.Events[0]
		n.brief = brief{key: "no pod, " + e.Reason}
		n.Why = append(n.Why, "no pod could be created"+because(e.Reason, e.Message))
		return
	}
	n.brief = brief{key: "no pod yet"}
	n.Why = append(n.Why, "no pod has been created yet")
}

// explainUnbound is for a pod that waits for the scheduler.
func (v *view) explainUnbound(n *NodeReport) {
	n.Room = v.lacks(n.Node)
	v.explainRoom(n)
	if len(n.Room) > 0 {
		return
	}
	n.brief = brief{key: "waiting for the scheduler"}
	if n.Scheduler = v.template.NeedsScheduler(); len(n.Scheduler) > 0 {
		what := strings.Join(n.Scheduler, ", ")
		n.brief.key += " (" + what + ")"
		n.Why = append(n.Why, "only the scheduler can judge: "+what)
	}
	for _, t := range n.Troubles {
		n.Why = append(n.Why, t.line(v.facts.Now))
	}
}

func (v *view) explainRoom(n *NodeReport) {
	if len(n.Room) == 0 {
		return
	}
	n.brief = short(n.Room)
	for _, r := range n.Room {
		n.Why = append(n.Why, r.String())
	}
	if len(v.tooSmall(n.Node)) > 0 {
		n.Why = append(n.Why, "the node would be too small even if it were empty")
	}
}

func (v *view) explainStarting(n *NodeReport, pod *daemonset.PodFact) {
	if down := v.trouble(n.Node); down != "" {
		n.brief = brief{key: v.word(n.Node)}
		n.Why = append(n.Why, down)
	}
	for _, t := range n.Troubles {
		n.brief = n.brief.or(t.brief())
		n.Why = append(n.Why, t.line(v.facts.Now))
	}
	if pod.Ready {
		n.brief = n.brief.or("ready, but not for minReadySeconds yet")
		n.Why = append(n.Why, fmt.Sprintf("the pod is ready, but not yet for minReadySeconds (%d)", v.facts.DaemonSet.Spec.MinReadySeconds))
	}
	n.brief = n.brief.or("starting")
}

func (v *view) explainUpdating(n *NodeReport) {
	onDelete := v.facts.DaemonSet.Spec.UpdateStrategy.Type == "OnDelete"
	for _, p := range n.Pods {
		switch {
		case p.Terminating:
			n.brief = brief{key: "the old pod is going"}
			n.Why = append(n.Why, v.going(p.Name))
		case p.Current:
			n.Why = append(n.Why, fmt.Sprintf("pod %s of the new revision is coming up", p.Name))
			if !p.Bound {
				n.Room = v.lacks(n.Node)
				v.explainRoom(n)
			}
		case onDelete:
			n.brief = n.brief.or("on an old revision until the pod is deleted (OnDelete)")
			n.Why = append(n.Why, fmt.Sprintf("pod %s is of revision %s: the strategy is OnDelete, so it stays until someone deletes it", p.Name, p.Revision))
		default:
			n.brief = n.brief.or("on an old revision")
			n.Why = append(n.Why, fmt.Sprintf("pod %s is of revision %s, and waits for its turn", p.Name, orUnknown(p.Revision)))
		}
	}
	for _, t := range n.Troubles {
		n.Why = append(n.Why, t.line(v.facts.Now))
	}
}

func (v *view) explainFailing(n *NodeReport) {
	for _, t := range n.Troubles {
		n.brief = n.brief.or(t.brief())
		n.Why = append(n.Why, "pod "+t.Pod+", "+t.line(v.facts.Now))
	}
	if down := v.trouble(n.Node); down != "" {
		n.Why = append(n.Why, down)
	}
	if !n.RetryAt.IsZero() {
		n.Why = append(n.Why, "it is tried again in "+duration.HumanDuration(n.RetryAt.Sub(v.facts.Now)))
	}
}

// going says since when a pod is on its way out, and what may hold it.
func (v *view) going(name string) string {
	s := fmt.Sprintf("pod %s is being deleted", name)
	p := v.pods[name]
	if p == nil || p.DeletionTimestamp == nil {
		return s
	}
	if d := v.facts.Now.Sub(p.DeletionTimestamp.Time); d > time.Second {
		s += ", overdue for " + duration.HumanDuration(d)
	}
	if len(p.Finalizers) > 0 {
		s += ", held by finalizer " + strings.Join(p.Finalizers, ", ")
	}
	if down := v.trouble(p.Spec.NodeName); down != "" {
		s += "; " + down
	}
	return s
}

func orUnknown(revision string) string {
	if revision == "" {
		return "unknown"
	}
	return revision
}

// restarts adds up the restarts of a pod's containers.
func restarts(p *corev1.Pod) int32 {
	var n int32
	if p != nil {
		for i := range p.Status.ContainerStatuses {
			n += p.Status.ContainerStatuses[i].RestartCount
		}
	}
	return n
}
