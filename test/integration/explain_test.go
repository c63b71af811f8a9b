package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	rules "github.com/everynode/everynode/internal/decide/placement"
	"github.com/everynode/everynode/internal/explain"
)

// manifests are the DaemonSets of the examples, and of the folder that EVERYNODE_CORPUS names.
func manifests(t *testing.T) map[string]*explain.Manifest {
	t.Helper()
	paths := must[[]string](t)(filepath.Glob("../../examples/*.yaml"))
	if dir := os.Getenv("EVERYNODE_CORPUS"); dir != "" {
		more := must[[]string](t)(filepath.Glob(filepath.Join(dir, "*.yaml")))
		if len(more) == 0 {
			t.Fatalf("EVERYNODE_CORPUS=%s holds no *.yaml", dir)
		}
		paths = append(paths, more...)
	}
	all := map[string]*explain.Manifest{}
	for _, path := range paths {
		f := must[*os.File](t)(os.Open(path))
		found, err := explain.ReadManifests(f)
		_ = f.Close()
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		for i, m := range found {
			all[fmt.Sprintf("%s#%d", filepath.Base(path), i)] = m
		}
	}
	if len(all) == 0 {
		t.Fatal("no DaemonSets: where are the examples?")
	}
	return all
}

// Real manifests, against a real server: each node is given a pod or a reason, plan and why agree, and nothing is
// stored.
func TestPlanAndWhyOfRealManifests(t *testing.T) {
	c := start(t)
	linux := map[string]string{"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
	c.node(t, "plain", linux)
	c.node(t, "windows", map[string]string{"kubernetes.io/os": "windows", "kubernetes.io/arch": "amd64"})
	c.node(t, "dedicated", linux)
	c.untainted(t, "plain", "windows", "dedicated")
	taint(t, c, "dedicated")
	g := explain.Gatherer{Client: c}
	all := manifests(t)
	for name, m := range all {
		t.Run(name, func(t *testing.T) {
			dry := must[*explain.DryRun](t)(explain.DryRunApply(t.Context(), c, m, "default"))
			facts := must[*explain.Facts](t)(g.ForPlan(t.Context(), dry.After))
			p := explain.NewPlan(facts, dry)
			t.Log(p.Summary, p.Never, p.Warnings, p.Notes)
			open := 0
			for _, n := range p.Nodes {
				if n.Placement.Outcome == rules.In {
					open++
				}
				if want := map[bool]explain.Action{true: explain.Create, false: explain.Exclude}[n.Placement.Outcome == rules.In]; n.Action != want {
					t.Errorf("node %s: %s, want %s", n.Node, n.Action, want)
				}
				if n.Action == explain.Exclude && len(n.Why) == 0 {
					t.Errorf("node %s is excluded for no reason", n.Node)
				}
			}
			if len(p.Nodes) != 3 || (open == 0) != (len(p.Waves) == 0) || (open == 0 && p.Never == "") {
				t.Errorf("%d nodes open, planned %s; never: %q", open, p.Summary, p.Never)
			}
			r := explain.Why(facts)
			if r.Counts.Out != 3-open || r.Counts.Pending != open || r.Never != p.Never {
				t.Errorf("plan says %s, why says %s", p.Summary, r.Summary)
			}
			for _, n := range r.Nodes {
				if len(n.Why) == 0 {
					t.Errorf("node %s is %s for no reason", n.Node, n.State)
				}
			}
		})
	}
	stored := must[[]string](t)(daemonSets(t, c))
	if len(stored) > 0 {
		t.Errorf("a plan stored %q", stored)
	}
	t.Logf("%d DaemonSets", len(all))
}

func taint(t *testing.T, c *cluster, node string) {
	t.Helper()
	await(t, "taint of "+node, func() (bool, string) {
		n, err := c.CoreV1().Nodes().Get(t.Context(), node, metav1.GetOptions{})
		if err != nil {
			return false, err.Error()
		}
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "dedicated", Value: "gpu", Effect: corev1.TaintEffectNoSchedule})
		_, err = c.CoreV1().Nodes().Update(t.Context(), n, metav1.UpdateOptions{})
		return err == nil, fmt.Sprint(err)
	})
}

func daemonSets(t *testing.T, c kubernetes.Interface) ([]string, error) {
	t.Helper()
	l, err := c.AppsV1().DaemonSets(metav1.NamespaceAll).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var names []string
	for i := range l.Items {
		names = append(names, l.Items[i].Name)
	}
	return names, nil
}

// What the controller does is what was planned, and why says so afterwards, from the live server.
func TestPlanComesTrue(t *testing.T) {
	c := start(t)
	ns := c.namespace(t, "plan-comes-true")
	for _, name := range []string{"n1", "n2", "n3"} {
		c.node(t, name, nil)
	}
	c.untainted(t, "n1", "n2", "n3")
	c.pod(t, ns, "big", func(p *corev1.Pod) { p.Spec.NodeName, p.Spec.Containers[0].Resources = "n3", cpu("1850m") })
	const text = `{"apiVersion":"apps/v1","kind":"DaemonSet","metadata":{"name":"d"},"spec":{"selector":{"matchLabels":{"a":"b"}},
		"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i","resources":{"requests":{"cpu":"300m"}}}]}}}}`
	m := must[[]*explain.Manifest](t)(explain.ReadManifests(strings.NewReader(text)))[0]
	g := explain.Gatherer{Client: c}
	dry := must[*explain.DryRun](t)(explain.DryRunApply(t.Context(), c, m, ns))
	p := explain.NewPlan(must[*explain.Facts](t)(g.ForPlan(t.Context(), dry.After)), dry)
	const planned = "created; of 3 nodes: create 3, in 1 wave; 1 would wait: cpu short by 150m"
	if p.Summary != planned {
		t.Errorf("planned %s, want %s", p.Summary, planned)
	}
	ds := dry.After.DeepCopy()
	ds.UID, ds.ResourceVersion = "", ""
	if _, err := c.AppsV1().DaemonSets(ns).Create(t.Context(), ds, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	const want = "2 of 3 nodes; 1 pending: cpu short by 150m"
	await(t, want, func() (bool, string) {
		for _, pod := range []string{"n1", "n2"} {
			c.makeReady(t, ns, pod)
		}
		f, err := g.ForWhy(t.Context(), ns, "d", nil)
		if err != nil {
			return false, err.Error()
		}
		got := explain.Why(f).Summary
		return got == want, got
	})
}

// untainted waits until nodes are ready to be planned for.
func (c *cluster) untainted(t *testing.T, nodes ...string) {
	t.Helper()
	for _, name := range nodes {
		await(t, name+" is no longer tainted as not ready", func() (bool, string) {
			n, err := c.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				return false, err.Error()
			}
			return len(n.Spec.Taints) == 0, fmt.Sprint(n.Spec.Taints)
		})
	}
}

// makeReady plays the agent of a node.
func (c *cluster) makeReady(t *testing.T, ns, node string) {
	t.Helper()
	l := must[*corev1.PodList](t)(c.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{FieldSelector: "spec.nodeName=" + node}))
	for i := range l.Items {
		p := &l.Items[i]
		if slices.ContainsFunc(p.Status.Conditions, func(x corev1.PodCondition) bool { return x.Type == corev1.PodReady }) {
			continue
		}
		now := metav1.NewTime(time.Now())
		p.Status.Phase = corev1.PodRunning
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: now}}
		_, _ = c.CoreV1().Pods(ns).UpdateStatus(t.Context(), p, metav1.UpdateOptions{}) // again, if another was faster
	}
}
