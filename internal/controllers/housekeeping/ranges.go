package housekeeping

import (
	"bytes"
	"context"
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
)

// RangeWriter writes the ranges of pod addresses of a node, and nothing else of it. Errors are those of the API.
type RangeWriter interface {
	SetNodeRanges(ctx context.Context, node string, cidrs []string) error
}

// rangeClient is the client of upstream's range allocator, whose one write, a patch of a node's ranges, goes to a
// RangeWriter: every node that joins would otherwise cost a request to ourselves.
type rangeClient struct {
	kubernetes.Interface
	ranges RangeWriter
}

// CoreV1 implements kubernetes.Interface.
func (c rangeClient) CoreV1() typedcorev1.CoreV1Interface {
	return rangeCore{c.Interface.CoreV1(), c.ranges}
}

type rangeCore struct {
	typedcorev1.CoreV1Interface
	ranges RangeWriter
}

// Nodes implements typedcorev1.CoreV1Interface.
func (c rangeCore) Nodes() typedcorev1.NodeInterface {
	return rangeNodes{c.CoreV1Interface.Nodes(), c.ranges}
}

type rangeNodes struct {
	typedcorev1.NodeInterface
	ranges RangeWriter
}

// Patch implements typedcorev1.NodeInterface. The node that it returns for a patch of ranges says nothing but its name.
func (n rangeNodes) Patch(ctx context.Context, name string, pt types.PatchType, data []byte, o metav1.PatchOptions, subresources ...string) (*corev1.Node, error) {
	cidrs, ok := rangesOnly(data)
	if !ok || len(subresources) > 0 {
		return n.NodeInterface.Patch(ctx, name, pt, data, o, subresources...)
	}
	if err := n.ranges.SetNodeRanges(ctx, name, cidrs); err != nil {
		return nil, err
	}
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, nil
}

// rangesOnly reads a patch that sets ranges and nothing else, as k8s.io/component-helpers/node/util makes it.
func rangesOnly(patch []byte) ([]string, bool) {
	var p struct {
		Spec struct {
			PodCIDR  string   `json:"podCIDR"`
			PodCIDRs []string `json:"podCIDRs"`
		} `json:"spec"`
	}
	d := json.NewDecoder(bytes.NewReader(patch))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return nil, false
	}
	cidrs := p.Spec.PodCIDRs
	return cidrs, len(cidrs) > 0 && cidrs[0] == p.Spec.PodCIDR
}
