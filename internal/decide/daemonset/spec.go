package daemonset

import (
	"time"

	"github.com/everynode/everynode/internal/decide/placement"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const (
	revisionLabel   = appsv1.DefaultDaemonSetUniqueLabelKey // controller-revision-hash
	generationLabel = "pod-template-generation"             // of extensions/v1beta1; kubectl still shows it
)

// spec is a DaemonSet, read once a generation.
type spec struct {
	namespace, name    string
	uid                types.UID
	generation         int64
	templateGeneration string // deprecated annotation; "" if there is none
	revision           string
	deleting           bool

	selector  labels.Selector
	placement *placement.Template
	template  *Template
	minReady  time.Duration

	rolling                  bool
	maxUnavailable, maxSurge *intstr.IntOrString
}

func readSpec(ds *appsv1.DaemonSet, revision string) *spec {
	sp := &spec{
		namespace: ds.Namespace, name: ds.Name, uid: ds.UID,
		generation:         ds.Generation,
		templateGeneration: ds.Annotations[appsv1.DeprecatedTemplateGeneration],
		revision:           revision,
		deleting:           ds.DeletionTimestamp != nil,
		selector:           selectorOf(ds),
		placement:          placement.Compile(ds.Namespace, &ds.Spec.Template),
		minReady:           time.Duration(ds.Spec.MinReadySeconds) * time.Second,
		rolling:            ds.Spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType,
	}
	sp.template = newTemplate(ds, sp)
	if r := ds.Spec.UpdateStrategy.RollingUpdate; sp.rolling && r != nil {
		sp.maxUnavailable, sp.maxSurge = r.MaxUnavailable, r.MaxSurge
	}
	return sp
}

// selectorOf never selects everything: the API refuses an empty selector, and an old object with one is left
// alone.
func selectorOf(ds *appsv1.DaemonSet) labels.Selector {
	s, err := metav1.LabelSelectorAsSelector(ds.Spec.Selector)
	if err != nil || s.Empty() {
		return labels.Nothing()
	}
	return s
}

// same says whether o was read from a DaemonSet that asks for the same.
func (sp *spec) same(ds *appsv1.DaemonSet, revision string) bool {
	return sp != nil && sp.uid == ds.UID && sp.generation == ds.Generation && sp.revision == revision &&
		sp.deleting == (ds.DeletionTimestamp != nil) &&
		sp.templateGeneration == ds.Annotations[appsv1.DeprecatedTemplateGeneration]
}

// updated says whether the pod is of the current revision.
func (sp *spec) updated(p *pod) bool {
	return (sp.revision != "" && p.revision == sp.revision) ||
		(sp.templateGeneration != "" && p.generation == sp.templateGeneration)
}

// surges says whether the update strategy may have two pods on a node.
func (sp *spec) surges() bool { return sp.surge(1) > 0 }

// surge is maxSurge out of that many nodes.
func (sp *spec) surge(nodes int) int { return scaled(sp.maxSurge, nodes, 0) }

// unavailable is maxUnavailable out of that many nodes. With neither it nor surge an update could never
// move, so one node may then be unavailable.
func (sp *spec) unavailable(nodes int) int {
	n := scaled(sp.maxUnavailable, nodes, 1)
	if n == 0 && nodes > 0 && sp.surge(nodes) == 0 {
		return 1
	}
	return n
}

// scaled rounds percentages up.
func scaled(v *intstr.IntOrString, of, unset int) int {
	if v == nil {
		return unset
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(v, of, true)
	if err != nil { // the API refuses it
		return unset
	}
	return n
}
