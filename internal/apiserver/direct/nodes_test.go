package direct_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A node's ranges are set once, and with nothing else of the node.
func TestNodeRanges(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{"a": "b"}}}
	before, err := f.client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.writer.SetNodeRanges(ctx, "n", []string{"10.42.7.0/24"}); err != nil {
		t.Fatal(err)
	}
	after, err := f.client.CoreV1().Nodes().Get(ctx, "n", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	before.Spec.PodCIDR, before.Spec.PodCIDRs = "10.42.7.0/24", []string{"10.42.7.0/24"}
	before.ResourceVersion = after.ResourceVersion
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("more changed than the ranges (-want +got)\n%s", diff)
	}
	if err := f.writer.SetNodeRanges(ctx, "n", []string{"10.42.7.0/24"}); err != nil {
		t.Errorf("the same again: %v", err)
	}
	if err := f.writer.SetNodeRanges(ctx, "n", []string{"10.42.8.0/24"}); !apierrors.IsInvalid(err) {
		t.Errorf("other ranges: %v, want invalid", err)
	}
	if err := f.writer.SetNodeRanges(ctx, "absent", []string{"10.42.8.0/24"}); !apierrors.IsNotFound(err) {
		t.Errorf("no such node: %v, want not found", err)
	}
}
