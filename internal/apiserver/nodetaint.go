package apiserver

import (
	"context"
	"io"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/admission"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/plugin/pkg/admission/nodetaint"
)

// taintUnready is upstream's NodeTaint plugin, for nodes that are not ready when they join. The taint keeps pods away
// until the node reports Ready; one that says so as it joins would only wait for the taint to be removed again, which
// costs a write and the time until somebody makes it.
//
// It also does at once what would take another write later: see labelOldNames.
type taintUnready struct{ *nodetaint.Plugin }

const (
	betaOS   = "beta.kubernetes.io/os"
	betaArch = "beta.kubernetes.io/arch"
)

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
		labelOldNames(node)
		if ready(node) {
			return nil
		}
	}
	return t.Plugin.Admit(ctx, a, o)
}

// labelOldNames gives a node its system and architecture under the names they had before Kubernetes 1.14, which old
// selectors use. Upstream's node lifecycle controller keeps them, with one more write of every node that joins.
func labelOldNames(n *api.Node) {
	for name, old := range map[string]string{corev1.LabelOSStable: betaOS, corev1.LabelArchStable: betaArch} {
		if value, ok := n.Labels[name]; ok {
			n.Labels[old] = value
		}
	}
}

func ready(n *api.Node) bool {
	for i := range n.Status.Conditions {
		if c := &n.Status.Conditions[i]; c.Type == api.NodeReady {
			return c.Status == api.ConditionTrue
		}
	}
	return false
}
