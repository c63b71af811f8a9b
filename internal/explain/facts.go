package explain

import (
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/everynode/everynode/internal/decide/daemonset"
	"github.com/everynode/everynode/internal/decide/nodehealth"
	"github.com/everynode/everynode/internal/decide/placement"
)

// Facts are what was listed of a cluster at one time. They are only read.
type Facts struct {
	Now       time.Time
	DaemonSet *appsv1.DaemonSet
	// Revisions of the DaemonSet's namespace; those it does not own are ignored.
	Revisions []*appsv1.ControllerRevision
	Nodes     []*corev1.Node
	// Partial says that Nodes are those asked for, not all there are.
	Partial bool
	// Pods are the DaemonSet's own, and those that take room on the nodes in question.
	Pods []*corev1.Pod
	// RoomUnknown says why the pods that take room could not be listed; "" if they could.
	RoomUnknown string
	// Renewed is when the lease of a node that is not ready was last renewed, as far as it is known.
	Renewed map[string]time.Time
	// Events are the latest warnings about the DaemonSet itself, the newest first.
	Events []*corev1.Event
}

// Revision returns the hash that pods of the DaemonSet's current template carry. The stored history says it; a
// DaemonSet whose history is not stored yet, or may not be read, is known by the hash of its template.
func (f *Facts) Revision() string {
	ds := f.DaemonSet
	var owned []*appsv1.ControllerRevision
	for _, r := range f.Revisions {
		if o := metav1.GetControllerOfNoCopy(r); o != nil && o.UID == ds.UID && ds.UID != "" {
			owned = append(owned, r)
		}
	}
	if data, err := daemonset.RevisionData(ds); err == nil {
		h := daemonset.PlanHistory(ds, data, owned)
		if h.Current != nil {
			return daemonset.HashOf(h.Current)
		}
		// A server of another version may write the same template with other bytes: if its controller has seen
		// this generation, the newest revision is the current one.
		if n := len(h.Old); n > 0 && ds.Generation > 0 && ds.Status.ObservedGeneration == ds.Generation {
			return daemonset.HashOf(h.Old[n-1])
		}
	}
	return daemonset.RevisionHash(&ds.Spec.Template, ds.Status.CollisionCount)
}

// view is the machine, knowing all facts.
type view struct {
	facts    *Facts
	revision string
	set      *daemonset.Set
	ledger   *placement.Ledger
	template *placement.Template
	nodes    map[string]*corev1.Node
	pods     map[string]*corev1.Pod // of the DaemonSet's namespace, by name
}

func (f *Facts) view() *view {
	v := &view{
		facts: f, revision: f.Revision(), ledger: placement.NewLedger(),
		template: placement.Compile(f.DaemonSet.Namespace, &f.DaemonSet.Spec.Template),
		nodes:    map[string]*corev1.Node{},
		pods:     map[string]*corev1.Pod{},
	}
	v.set = daemonset.New(f.DaemonSet, v.revision, daemonset.Options{Ledger: v.ledger})
	for _, n := range f.Nodes {
		v.nodes[n.Name] = n
		known := placement.NodeOf(n)
		v.ledger.SetNode(known)
		v.set.SetNode(known)
	}
	for _, p := range f.Pods {
		v.setPod(p)
	}
	return v
}

func (v *view) setPod(p *corev1.Pod) {
	v.ledger.SetPod(p)
	if p.Namespace == v.facts.DaemonSet.Namespace {
		v.pods[p.Name] = p
		v.set.SetPod(daemonset.PodOf(p))
	}
}

// lacks says what the node lacks for one more pod, or that this is not known.
func (v *view) lacks(node string) []placement.Reason {
	if v.facts.RoomUnknown != "" {
		return nil
	}
	return v.ledger.Explain(node, v.template.Demand())
}

// tooSmall says what a pod asks for beyond all that the node has, even without any other pod.
func (v *view) tooSmall(node string) []placement.Reason {
	return v.ledger.TooSmall(node, v.template.Demand())
}

// nodeNames lists the nodes, sorted. Pods that wait for a node that is gone are not nodes.
func (v *view) nodeNames() []string {
	names := make([]string, 0, len(v.nodes))
	for name := range v.nodes {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// health reads a node's health; false if there is no such node.
func (v *view) health(node string) (nodehealth.Health, bool) {
	n := v.nodes[node]
	if n == nil {
		return nodehealth.Health{}, false
	}
	return nodehealth.Explain(n, v.facts.Renewed[node]), true
}

// trouble says why a node does not run pods, "" if it does.
func (v *view) trouble(node string) string {
	h, ok := v.health(node)
	if !ok {
		return ""
	}
	return oneLine(h.Trouble(v.facts.Now))
}

// word is trouble for a summary: "the node is silent".
func (v *view) word(node string) string {
	h, _ := v.health(node)
	return "the node is " + h.Word()
}

// excluded is the brief of a node that the template excludes. A node that is only kept out by its own health is
// not one that the DaemonSet was not made for.
func (v *view) excluded(node string, reasons []placement.Reason) brief {
	byHealth := func(r placement.Reason) bool { return r.Rule == placement.Taint && nodehealth.Bars(r.Taint) }
	h, ok := v.health(node)
	if ok && h.Ready != corev1.ConditionTrue && !slices.ContainsFunc(reasons, func(r placement.Reason) bool { return !byHealth(r) }) {
		return brief{key: "excluded while " + v.word(node)}
	}
	return excludedBy(reasons)
}

// because joins what an object says about a condition: ": Reason: message".
func because(reason, message string) string {
	s := ""
	if reason != "" {
		s = ": " + reason
	}
	if message = oneLine(message); message != "" {
		s += ": " + message
	}
	return s
}
