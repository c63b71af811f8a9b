package housekeeping

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/component-helpers/node/util"
)

type recordedRanges struct {
	set []string
	err error
}

func (r *recordedRanges) SetNodeRanges(_ context.Context, node string, cidrs []string) error {
	r.set = append(r.set, node+"="+strings.Join(cidrs, ","))
	return r.err
}

// What upstream's allocator writes goes to the writer, and nothing else does.
func TestRangesGoToTheWriter(t *testing.T) {
	api := fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}})
	r := &recordedRanges{}
	c := rangeClient{api, r}
	if err := util.PatchNodeCIDRs(t.Context(), c, "n", []string{"10.42.1.0/24"}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"n=10.42.1.0/24"}; !slices.Equal(r.set, want) {
		t.Errorf("written %v, want %v", r.set, want)
	}
	if n := len(api.Actions()); n != 0 {
		t.Errorf("%d requests besides", n)
	}
	r.err = errors.New("refused")
	if err := util.PatchNodeCIDRs(t.Context(), c, "n", []string{"10.42.1.0/24"}); !errors.Is(err, r.err) && (err == nil || !strings.Contains(err.Error(), "refused")) {
		t.Errorf("the writer's error is lost: %v", err)
	}
	r.set = nil
	for _, patch := range []string{`{"spec":{"unschedulable":true}}`, `{"spec":{"podCIDR":"10.42.1.0/24","podCIDRs":["10.42.1.0/24"]},"metadata":{"labels":{"a":"b"}}}`, `{"metadata":{"labels":{"a":"b"}}}`} {
		if _, err := c.CoreV1().Nodes().Patch(t.Context(), "n", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.set) != 0 || len(api.Actions()) != 3 {
		t.Errorf("other patches: %v written, %d requests, want 3", r.set, len(api.Actions()))
	}
}
