package direct

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/kubernetes/pkg/apis/core"
)

var nodeTarget = target{
	kind: corev1.SchemeGroupVersion.WithKind("Node"), resource: corev1.SchemeGroupVersion.WithResource("nodes"), prefix: "/api/v1",
}

// nodeController is the service account that upstream's controllers of nodes write as.
const nodeController = "node-controller"

// SetNodeRanges writes the ranges that a node's pods get their addresses from, and nothing else of the node. The API
// refuses to change ranges that are set. The stored managedFields stay as they are.
func (w *Writer) SetNodeRanges(ctx context.Context, node string, cidrs []string) error {
	return w.updateNode(ctx, node, func(n *core.Node) { n.Spec.PodCIDRs = slices.Clone(cidrs) })
}

// updateNode is the middle of the patch handler: change works on a copy of the stored node, anew when that has changed
// meanwhile.
func (w *Writer) updateNode(ctx context.Context, name string, change func(*core.Node)) error {
	if w.o.Nodes == nil {
		return apierrors.NewInternalError(errors.New("direct writer: no node registry"))
	}
	as := &Writer{o: w.o, objects: w.objects}
	as.o.User = controllerUser(nodeController)
	c := as.call(ctx, nodeTarget, "update", "", name)
	return c.run(func(ctx context.Context) (runtime.Object, error) {
		options := &metav1.UpdateOptions{}
		options.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("UpdateOptions"))
		admit := admission.WithAudit(as.o.Admission)
		info := rest.DefaultUpdatedObjectInfo(nil, func(_ context.Context, _, old runtime.Object) (runtime.Object, error) {
			stored, ok := old.(*core.Node)
			if !ok {
				return nil, fmt.Errorf("%T is not a node", old)
			}
			n := stored.DeepCopy()
			change(n)
			return n, nil
		}, as.admitUpdate(admit, c, options, false))
		stored, _, err := as.o.Nodes.Update(ctx, name, info, refuseCreate,
			rest.AdmissionToValidateObjectUpdateFunc(admit, as.attributes(c, nil, admission.Update, options, false), as.objects), false, options)
		return stored, err
	}, nil)
}
