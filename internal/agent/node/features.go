package node

import (
	"slices"

	"k8s.io/component-helpers/nodedeclaredfeatures/features/inplacepodresize"
	"k8s.io/component-helpers/nodedeclaredfeatures/features/restartallcontainers"
)

// declaredFeatures are those that this agent has, of the ones that API server and
// scheduler ask a node about before they let a pod use them there:
// https://kubernetes.io/docs/concepts/scheduling-eviction/node-declared-features/
func declaredFeatures() []string {
	names := []string{
		inplacepodresize.NonSidecarInitContainerResizeFeature.Name(),
		inplacepodresize.PodLevelResourcesResizeFeature.Name(),
		restartallcontainers.Feature.Name(),
	}
	slices.Sort(names)
	return names
}
