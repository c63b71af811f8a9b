package apiserver

import (
	"context"
	"io"
	"maps"

	"k8s.io/apiserver/pkg/admission"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/plugin/pkg/admission/nodetaint"

	"github.com/everynode/everynode/internal/decide/nodehealth"
)

// taintUnready is upstream's NodeTaint plugin, for nodes that are not ready when they join. The taint keeps pods away
// until the node reports Ready; one that says so as it joins would only wait for the taint to be removed again, which
// costs a write and the time until somebody makes it.
//
// It also does at once what would take the node health controller another write of every node that joins: it gives a
// node its system and architecture under the names they had before Kubernetes 1.14, which old selectors use.
type taintUnready struct{ *nodetaint.Plugin }

var _ admission.MutationInterface = taintUnready{}

func registerTaintUnready(plugins *admission.Plugins) {
	plugins.Register(nodetaint.PluginName, func(io.Reader) (admission.Interface, error) {
		return taintUnready{nodetaint.NewPlugin()}, nil
	})
}

// Admit implements admission.MutationInterface.
func (t taintUnready) Admit(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	node, ok := a.GetObject().(*api.Node)
	if ok && a.GetSubresource() == "" {
		maps.Copy(node.Labels, nodehealth.OldLabels(node.Labels))
		if ready(node) {
			return nil
		}
	}
	return t.Plugin.Admit(ctx, a, o)
}

func ready(n *api.Node) bool {
	for i := range n.Status.Conditions {
		if c := &n.Status.Conditions[i]; c.Type == api.NodeReady {
			return c.Status == api.ConditionTrue
		}
	}
	return false
}
