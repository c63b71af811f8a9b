package apiserver

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/util/dryrun"
	api "k8s.io/kubernetes/pkg/apis/core"
	nodestore "k8s.io/kubernetes/pkg/registry/core/node/storage"
)

// NodeRanges promises ranges of pod addresses to nodes that are being created.
type NodeRanges interface {
	// With calls create with the range for the node, or "" when it has none to promise, and returns create's error.
	// When that says that nothing was written, the range is free again.
	With(ctx context.Context, node string, create func(ctx context.Context, cidr string) error) error
}

// nodeKind is upstream's registry of nodes, but that a node is stored with its range of pod addresses. Upstream writes
// that to it afterwards: one more write for every node that joins, and one more event to everybody who watches nodes.
type nodeKind struct {
	*nodestore.REST
	ranges NodeRanges
}

// Create implements rest.Storage of what can be created.
func (k nodeKind) Create(ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, o *metav1.CreateOptions) (runtime.Object, error) {
	n, ok := obj.(*api.Node)
	if !ok || k.ranges == nil || n.Name == "" || len(n.Spec.PodCIDRs) > 0 || dryrun.IsDryRun(o.DryRun) {
		return k.REST.Create(ctx, obj, validate, o)
	}
	var stored runtime.Object
	err := k.ranges.With(ctx, n.Name, func(ctx context.Context, cidr string) (err error) {
		if cidr != "" {
			n.Spec.PodCIDRs = []string{cidr}
		}
		stored, err = k.REST.Create(ctx, n, validate, o)
		return err
	})
	return stored, err //nolint:wrapcheck // an API status
}
