//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/everynode/everynode/test/e2e/cluster"
)

var updates = []fleetTest{
	{"one at a time", func(f *fleet) { f.rolls("one", "1", 3, 2) }},
	{"half at a time", func(f *fleet) { f.rolls("half", "50%", 2, 1) }}, // of three nodes, rounded up
	{"surge", (*fleet).surges},
	{"OnDelete", (*fleet).waitsForDeletion},
	{"failing image", (*fleet).stopsAndGoesBack},
	{"history", (*fleet).keepsHistory},
}

// rolls updates with maxUnavailable: in so many waves, with so many nodes ready at every moment.
func (f *fleet) rolls(name, maxUnavailable string, waves, ready int) {
	spec := fmt.Sprintf("  updateStrategy: {rollingUpdate: {maxUnavailable: %s}}\n", maxUnavailable)
	f.says("plan", f.plan(set(name, "1", spec)), `^default/`+name+`: created; of 3 nodes: create 3, in 1 wave$`)
	f.Apply(set(name, "1", spec))
	before := f.settle(name)
	f.says("why", f.why(name).Stdout, `^default/`+name+`: 3 of 3 nodes$`)

	f.says("plan", f.plan(set(name, "2", spec)), fmt.Sprintf(`^default/%s: changed \(spec.template\); of 3 nodes: update 3, in %d waves?$`, name, waves))
	if now := f.settle(name); len(kept(before, now)) != 3 {
		f.Errorf("plan has changed something: %d of 3 pods are as they were", len(kept(before, now)))
	}

	seen := f.observe(name)
	f.Apply(set(name, "2", spec))
	after := f.settle(name)
	most, _, fewest := f.end(seen)
	if most != 1 || fewest != ready {
		f.Errorf("a node had up to %d pods, want 1; %d nodes were always ready, want %d", most, fewest, ready)
	}
	if revision(after) == "" || revision(after) == revision(before) {
		f.Errorf("revision %q became %q", revision(before), revision(after))
	}
	f.MustKubectl("delete", "ds", name)
}

// A surge starts each new pod beside the old one, on one node at a time, and no node is ever without.
func (f *fleet) surges() {
	const spec = "  updateStrategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}\n"
	f.Apply(set("surge", "1", spec))
	before := f.settle("surge")
	seen := f.observe("surge")
	f.Apply(set("surge", "2", spec))
	f.says("rollout status", f.MustKubectl("rollout", "status", "ds/surge", "--timeout=60s"), `successfully rolled out`)
	cluster.Await(f, "the old pods are gone", time.Minute, func(ctx context.Context) error {
		_, err := podsOf(ctx, f.Cluster, "surge")
		return err
	})
	after := f.settle("surge")
	most, surging, fewest := f.end(seen)
	if most != 2 || surging != 1 || fewest != 3 {
		f.Errorf("a node had up to %d pods, want 2; %d nodes surged at once, want 1; %d nodes were always ready, want 3", most, surging, fewest)
	}
	if revision(after) == "" || revision(after) == revision(before) {
		f.Errorf("revision %q became %q", revision(before), revision(after))
	}
	f.MustKubectl("delete", "ds", "surge")
}

// With OnDelete a pod is updated when somebody deletes it, and no sooner.
func (f *fleet) waitsForDeletion() {
	const spec = "  updateStrategy: {type: OnDelete}\n"
	f.Apply(set("manual", "1", spec))
	before := awaitOnEach(f, f.Cluster, "manual", time.Minute)
	f.Apply(set("manual", "2", spec))
	f.awaitSays("why knows of the update", `^default/manual: 0 of 3 nodes; 3 updating: on an old revision until the pod is deleted \(OnDelete\)$`,
		func() cluster.Result { return f.why("manual") })
	if r := f.Kubectl("rollout", "status", "ds/manual"); r.Code == 0 || !strings.Contains(r.Stderr, "only available for RollingUpdate strategy type") {
		f.Errorf("rollout status: code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	node := f.Nodes[0].Name
	f.MustKubectl("delete", "pod", before[node].Name)
	f.awaitSays("the pod is replaced by a new one", `^default/manual: 1 of 3 nodes; 2 updating`, func() cluster.Result { return f.why("manual") })
	after := f.pods("manual")
	if same := kept(before, after); len(same) != 2 || revision(after) != "" {
		f.Errorf("the pods of %q are as they were, want all but that of %s", same, node)
	}
	f.says("get ds", f.MustKubectl("get", "ds", "manual", "--no-headers"), `^manual +3 +3 +3 +1 +3 `)
	f.MustKubectl("delete", "ds", "manual")
}

// An image that cannot be had stops the update at its first node, is named, and an undo leaves the others alone.
func (f *fleet) stopsAndGoesBack() {
	f.Apply(set("bad", "1", ""))
	before := f.settle("bad")
	f.MustKubectl("set", "image", "ds/bad", "app=registry.invalid/none:2")
	f.awaitSays("why names the image", `^default/bad: 2 of 3 nodes; 1 failing: container app: (ErrImagePull|ImagePullBackOff)`+
		`|^default/bad: 0 of 3 nodes; 1 failing: container app: (ErrImagePull|ImagePullBackOff), 2 updating: on an old revision$`,
		func() cluster.Result { return f.why("bad") })
	f.says("why", f.why("bad").Stdout, `failing +pod bad-\w+, container app: (ErrImagePull|ImagePullBackOff): .*registry.invalid/none:2`, `updating +pod bad-\w+ is of revision \w+, and waits for its turn`)
	if r := f.Everynode("", "why", "ds/bad", "--exit-code"); r.Code != 3 {
		f.Errorf("why --exit-code: %d, want 3", r.Code)
	}
	if r := f.Kubectl("rollout", "status", "ds/bad", "--timeout=2s"); r.Code == 0 || !strings.Contains(r.Stdout, "1 out of 3 new pods have been updated") {
		f.Errorf("rollout status: code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	if same := kept(before, f.pods("bad")); len(same) != 2 {
		f.Errorf("the pods of %q run on, want those of two nodes", same)
	}
	f.says("undo", f.MustKubectl("rollout", "undo", "ds/bad"), `^daemonset.apps/bad rolled back$`)
	after := f.settle("bad")
	if same := kept(before, after); len(same) != 2 || revision(after) != revision(before) {
		f.Errorf("after the undo the pods of %q are as they were, want those of two nodes; revision %s, want %s", same, revision(after), revision(before))
	}
	f.MustKubectl("delete", "ds", "bad")
}

// History, undo to any revision, restart, and the history's limit.
func (f *fleet) keepsHistory() {
	const limit = "  revisionHistoryLimit: 2\n  updateStrategy: {rollingUpdate: {maxUnavailable: 3}}\n"
	step := func(version string) {
		f.Helper()
		f.Apply(set("past", version, limit))
		f.MustKubectl("annotate", "ds/past", "kubernetes.io/change-cause=version "+version, "--overwrite")
		f.settle("past")
	}
	step("1")
	step("2")
	f.says("history", f.MustKubectl("rollout", "history", "ds/past"), `^daemonset.apps/past *$`, `^REVISION +CHANGE-CAUSE$`, `^1 +`, `^2 +`)
	f.says("history of one", f.MustKubectl("rollout", "history", "ds/past", "--revision=1"), `^daemonset.apps/past with revision #1$`, `VERSION:\s+1$`)
	if r := f.Kubectl("rollout", "undo", "ds/past", "--to-revision=7"); r.Code == 0 || !strings.Contains(r.Stderr, "unable to find specified revision 7 in history") {
		f.Errorf("undo to what is not there: code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	second := revision(f.pods("past"))

	f.says("undo", f.MustKubectl("rollout", "undo", "ds/past", "--to-revision=1"), `rolled back`)
	f.settle("past") // revision 1 is now 3
	f.says("history", f.MustKubectl("rollout", "history", "ds/past"), `^2 +`, `^3 +`)
	f.MustKubectl("rollout", "undo", "ds/past")
	if back := revision(f.settle("past")); back != second {
		f.Errorf("undo went to revision %s, want %s", back, second)
	}

	before := f.pods("past")
	f.says("restart", f.MustKubectl("rollout", "restart", "ds/past"), `^daemonset.apps/past restarted$`)
	if same := kept(before, f.settle("past")); len(same) != 0 {
		f.Errorf("the pods of %q were not restarted", same)
	}
	step("3")
	f.awaitSays("the oldest revision goes", `^3$`, func() cluster.Result {
		list, err := f.Client().AppsV1().ControllerRevisions("default").List(context.Background(), metav1.ListOptions{LabelSelector: "app=past"})
		if err != nil {
			return cluster.Result{Stderr: err.Error()}
		}
		return cluster.Result{Stdout: fmt.Sprint(len(list.Items))}
	})
	f.MustKubectl("delete", "ds", "past")
}

var _ testing.TB = (*fleet)(nil)
