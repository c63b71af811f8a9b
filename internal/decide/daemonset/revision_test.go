package daemonset

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"
)

func richDaemonSet() *appsv1.DaemonSet {
	ds := newDaemonSet(rolling("1", "0"))
	ds.Annotations = map[string]string{"kubernetes.io/change-cause": "because"}
	spec := &ds.Spec.Template.Spec
	spec.Containers[0].Env = []corev1.EnvVar{{Name: "A", Value: "<&>\u2028"}}
	spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1500m")}
	spec.TerminationGracePeriodSeconds = ptr.To[int64](9007199254740993)
	spec.SecurityContext = &corev1.PodSecurityContext{}
	return ds
}

// TestRevisionDataIsUpstreams repeats how upstream's controller makes the bytes.
func TestRevisionDataIsUpstreams(t *testing.T) {
	ds := richDaemonSet()
	whole, err := utiljson.Marshal(ds)
	if err != nil {
		t.Fatal(err)
	}
	var raw map[string]any
	if err := utiljson.Unmarshal(whole, &raw); err != nil {
		t.Fatal(err)
	}
	template := raw["spec"].(map[string]any)["template"].(map[string]any)
	template["$patch"] = "replace"
	want, err := utiljson.Marshal(map[string]any{"spec": map[string]any{"template": template}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := RevisionData(ds)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("(-upstream +ours):\n%s", d)
	}
}

// TestRevisionDataRestores applies the patch, as kubectl rollout undo does.
func TestRevisionDataRestores(t *testing.T) {
	old := richDaemonSet()
	data, err := RevisionData(old)
	if err != nil {
		t.Fatal(err)
	}
	now := newDaemonSet(rolling("1", "0"))
	now.Spec.Template.Spec.Containers[0].Name = "other"
	b, err := json.Marshal(now)
	if err != nil {
		t.Fatal(err)
	}
	restored, err := strategicpatch.StrategicMergePatch(b, data, now)
	if err != nil {
		t.Fatal(err)
	}
	var got appsv1.DaemonSet
	if err := json.Unmarshal(restored, &got); err != nil {
		t.Fatal(err)
	}
	again, err := RevisionData(&got)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(data), string(again)); d != "" {
		t.Errorf("(-stored +restored):\n%s", d)
	}
}

func TestRevisionHashDependsOnCollisions(t *testing.T) {
	ds := richDaemonSet()
	seen := map[string]bool{}
	for _, collisions := range []*int32{nil, ptr.To[int32](1), ptr.To[int32](2)} {
		seen[RevisionHash(&ds.Spec.Template, collisions)] = true
	}
	if len(seen) != 3 {
		t.Errorf("hashes: %v", seen)
	}
	if a, b := RevisionHash(&ds.Spec.Template, nil), RevisionHash(&richDaemonSet().Spec.Template, nil); a != b {
		t.Errorf("one template, two hashes: %s, %s", a, b)
	}
}

func TestPlanHistory(t *testing.T) {
	ds := richDaemonSet()
	data, err := RevisionData(ds)
	if err != nil {
		t.Fatal(err)
	}
	revision := func(number int64, data string) *appsv1.ControllerRevision {
		return &appsv1.ControllerRevision{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("r%d", number), Labels: map[string]string{revisionLabel: fmt.Sprintf("h%d", number)}},
			Revision:   number, Data: runtime.RawExtension{Raw: []byte(data)},
		}
	}
	names := func(rs []*appsv1.ControllerRevision) (names []string) {
		for _, r := range rs {
			names = append(names, r.Name)
		}
		return names
	}

	first := PlanHistory(ds, data, nil)
	if first.Create == nil || first.Number != 1 || first.Create.Annotations["kubernetes.io/change-cause"] != "because" {
		t.Errorf("the first revision: %+v", first)
	}
	rollback := PlanHistory(ds, data, []*appsv1.ControllerRevision{revision(3, "b"), revision(1, string(data)), revision(2, "a")})
	if rollback.Current == nil || rollback.Current.Name != "r1" || rollback.Number != 4 || rollback.Create != nil {
		t.Errorf("a rollback: %+v", rollback)
	}
	if d := cmp.Diff([]string{"r2", "r3"}, names(rollback.Old)); d != "" {
		t.Error(d)
	}
	twice := PlanHistory(ds, data, []*appsv1.ControllerRevision{revision(1, string(data)), revision(2, string(data))})
	if twice.Current.Name != "r2" || cmp.Diff([]string{"r1"}, names(twice.Duplicates)) != "" {
		t.Errorf("the same template twice: %+v", twice)
	}
	carried := func(hash string) bool { return hash == "h2" }
	if d := cmp.Diff([]string{"r3"}, names(rollback.Prune(1, carried))); d != "" {
		t.Errorf("pruned (-want +got):\n%s", d)
	}
	if got := rollback.Prune(2, carried); got != nil {
		t.Errorf("pruned within the limit: %v", names(got))
	}
}

func TestPodName(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set := rapid.StringMatching(`[a-z0-9]([a-z0-9.-]{0,80}[a-z0-9])?`).Filter(func(s string) bool {
			return len(validation.IsDNS1123Subdomain(s)) == 0
		}).Draw(t, "set")
		node := rapid.StringMatching(`[a-z0-9-]{1,60}`).Draw(t, "node")
		name := podName(set, "uid", node, "rev", 0)
		if errs := validation.IsDNS1123Subdomain(name); len(errs) > 0 || len(name) > maxNameLength {
			t.Fatalf("%q: %v", name, errs)
		}
		if name != podName(set, "uid", node, "rev", 0) {
			t.Fatal("not the same twice")
		}
		others := map[string]bool{name: true}
		others[podName(set, "uid2", node, "rev", 0)] = true
		others[podName(set, "uid", node+"x", "rev", 0)] = true
		others[podName(set, "uid", node, "rev2", 0)] = true
		others[podName(set, "uid", node, "rev", 1)] = true
		if len(others) != 5 {
			t.Fatalf("clashes among %v", others)
		}
	})
}

func TestRenderedPod(t *testing.T) {
	ds := richDaemonSet()
	ds.Annotations[appsv1.DeprecatedTemplateGeneration] = "7"
	ds.Spec.Template.Spec.Affinity = &corev1.Affinity{
		NodeAffinity: &corev1.NodeAffinity{
			PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: 1}},
			RequiredDuringSchedulingIgnoredDuringExecution:  &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{}}},
		},
	}
	s := New(ds, "hash", Options{})
	for _, bound := range []bool{true, false} {
		p := s.spec.template.Pod(Create{Node: "n1", Name: "agent-x", Bound: bound})
		if (p.Spec.NodeName == "n1") != bound || TargetNode(p) != "n1" {
			t.Errorf("bound %v: nodeName %q, target %q", bound, p.Spec.NodeName, TargetNode(p))
		}
		if d := cmp.Diff(map[string]string{"app": "agent", revisionLabel: "hash", generationLabel: "7"}, p.Labels); d != "" {
			t.Errorf("labels (-want +got):\n%s", d)
		}
		owner := metav1.GetControllerOf(p)
		if owner == nil || owner.UID != types.UID("ds-uid") || owner.Kind != "DaemonSet" || !*owner.BlockOwnerDeletion {
			t.Errorf("owner %+v", owner)
		}
		if len(p.Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution) != 1 {
			t.Error("the preference is lost")
		}
	}
	if len(ds.Spec.Template.Labels) != 1 || len(ds.Spec.Template.Spec.Tolerations) != 0 ||
		len(ds.Spec.Template.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].MatchFields) != 0 {
		t.Error("the DaemonSet was changed")
	}
}
