package sim

import (
	"maps"
	"slices"
	"time"

	machine "github.com/everynode/everynode/internal/decide/daemonset"
	"github.com/everynode/everynode/internal/decide/placement"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// The promises that a world holds the machine to.
const (
	OnePerNode = "never two pods on a node"
	BudgetKept = "the update's own deletes stay within maxUnavailable"
	Converges  = "comes to rest as the oracle says"
	EmptyPlan  = "at rest the plan is empty, a new leader's too"
)

// truth knows the world as it is stored, not as anyone sees it, and holds it against the promises.
type truth struct {
	w        *world
	template *placement.Template
	selector labels.Selector
	revision string
	surges   bool
	ledger   *placement.Ledger

	nodes                       map[string]*nodeTruth
	desired, available, updated int
	mostDesired                 int

	// ours are the nodes that updates have made unavailable and that are not available again.
	ours map[string]bool
}

// nodeTruth is one node, and what it adds to the counters. It is there as long as the node is, or a pod of it.
type nodeTruth struct {
	facts                       *placement.Node // nil: there is no such node
	desired, available, updated bool
}

func newTruth(w *world) *truth {
	return &truth{w: w, ledger: placement.NewLedger(), nodes: map[string]*nodeTruth{}, ours: map[string]bool{}}
}

func targetOf(p *corev1.Pod) string { return machine.TargetNode(p) }

func (t *truth) specChanged() {
	ds := t.w.store.ds
	t.template = placement.Compile(ds.Namespace, &ds.Spec.Template)
	t.revision = t.w.revisionOf(ds)
	_, surge := budget(ds, 1)
	t.surges = surge > 0
	t.selector, _ = metav1.LabelSelectorAsSelector(ds.Spec.Selector) // Validate has seen it
	for name := range t.nodes {
		t.recount(name)
	}
}

func (t *truth) nodeChanged(name string) {
	n := t.nodes[name]
	if n == nil {
		n = &nodeTruth{}
		t.nodes[name] = n
	}
	n.facts = nil
	if node := t.w.store.nodes[name]; node != nil {
		n.facts = placement.NodeOf(node)
		t.ledger.SetNode(n.facts)
	} else {
		t.ledger.RemoveNode(name)
	}
	t.recount(name)
	t.w.progress()
}

func (t *truth) podChanged(node string) {
	t.checkOne(node)
	t.recount(node)
	t.w.progress()
}

// isOurs says whether a pod is the DaemonSet's, or would be adopted.
func (t *truth) isOurs(p *corev1.Pod) bool {
	if owner := metav1.GetControllerOfNoCopy(p); owner != nil {
		return owner.UID == setUID
	}
	return p.DeletionTimestamp == nil && t.selector.Matches(labels.Set(p.Labels))
}

// outcome is what the template makes of a node.
func (t *truth) outcome(name string) placement.Outcome {
	n := t.nodes[name]
	if n == nil || n.facts == nil {
		return placement.Out
	}
	return t.template.Judge(n.facts)
}

func (t *truth) recount(name string) {
	n := t.nodes[name]
	if n == nil {
		return
	}
	t.add(n, -1)
	n.desired = t.outcome(name) == placement.In
	n.available, n.updated = false, false
	for _, p := range t.w.store.onNode[name] {
		if p.DeletionTimestamp == nil && t.isOurs(p) && isAvailable(p, minReady(t.w.store.ds), t.w.now) {
			n.available = true
			n.updated = n.updated || p.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] == t.revision
		}
	}
	if n.available || !n.desired {
		delete(t.ours, name)
	}
	n.available, n.updated = n.available && n.desired, n.updated && n.desired
	t.add(n, 1)
	t.mostDesired = max(t.mostDesired, t.desired)
	if n.facts == nil && len(t.w.store.onNode[name]) == 0 {
		delete(t.nodes, name)
	}
}

func (t *truth) add(n *nodeTruth, sign int) {
	for _, x := range [...]struct {
		is  bool
		sum *int
	}{{n.desired, &t.desired}, {n.available, &t.available}, {n.updated, &t.updated}} {
		if x.is {
			*x.sum += sign
		}
	}
}

// hasRoom says whether a node has room for a pod, itself not counted.
func (t *truth) hasRoom(p *corev1.Pod) bool {
	key := placement.PodKey(p.Namespace, p.Name)
	t.ledger.Remove(key)
	fits := t.ledger.Fits(targetOf(p), placement.DemandOf(&p.Spec))
	if t.w.store.pods[p.Name] == p {
		t.ledger.SetPod(p)
	}
	return fits
}

func (t *truth) checkOne(node string) {
	running, going := 0, 0
	for _, p := range t.w.store.onNode[node] {
		switch {
		case !t.isOurs(p) || ended(p):
		case p.DeletionTimestamp != nil:
			going++
		default:
			running++
		}
	}
	most := 1
	if t.surges {
		most, going = 2, 0 // what goes away may be joined by its successor
	}
	t.w.checked(OnePerNode)
	if running+going > most && !t.w.o.Faults.overlap {
		t.w.violate(OnePerNode, []string{node}, "%d pods that have not ended are on node %s, %d may be", running+going, node, most)
	}
}

// excuse takes a node out of the update's account: something else has befallen it.
func (t *truth) excuse(node string) { delete(t.ours, node) }

// deleting is told of each delete before it is done; believed says whether its sender saw the pod available. A
// delete of a controller that no longer leads is nobody's plan any more, and is left out of the account.
func (t *truth) deleting(c *controller, x machine.Delete, believed bool) {
	p := t.w.store.pods[x.Name]
	if x.Reason != machine.Outdated || t.surges || !believed || c != t.w.leader || p == nil || p.UID != x.UID || p.DeletionTimestamp != nil {
		return
	}
	n := t.nodes[x.Node]
	if n == nil || !n.desired || !isAvailable(p, minReady(t.w.store.ds), t.w.now) {
		return
	}
	t.ours[x.Node] = true
	allowed, _ := budget(t.w.store.ds, t.mostDesired)
	t.w.result.MostByUpdate = max(t.w.result.MostByUpdate, len(t.ours))
	t.w.checked(BudgetKept)
	if len(t.ours) > allowed {
		t.w.violate(BudgetKept, slices.Sorted(maps.Keys(t.ours)), "updates have made %d nodes unavailable at a time, %d may be", len(t.ours), allowed)
	}
}

// roundedDown is for people.
func roundedDown(d time.Duration) time.Duration { return d.Truncate(time.Millisecond) }
