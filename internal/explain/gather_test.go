package explain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"
)

// server is an API in memory that answers dry runs without storing anything. calls are what was asked.
func server(objects ...runtime.Object) (c *fake.Clientset, calls *[]string) {
	c = fake.NewClientset(objects...)
	calls = &[]string{}
	c.PrependReactor("*", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		*calls = append(*calls, strings.TrimSpace(fmt.Sprintf("%s %s %s", a.GetVerb(), a.GetResource().Resource, a.GetNamespace())))
		return false, nil, nil
	})
	c.PrependReactor("create", "daemonsets", func(a clienttesting.Action) (bool, runtime.Object, error) {
		ds := a.(clienttesting.CreateAction).GetObject().(*appsv1.DaemonSet).DeepCopy()
		if ds.Namespace == "absent" {
			return true, nil, apierrors.NewNotFound(corev1.Resource("namespaces"), ds.Namespace)
		}
		ds.UID, ds.Generation = "of-a-dry-run", 1
		if ds.Spec.UpdateStrategy.Type == "" {
			ds.Spec.UpdateStrategy = rolling("1", "0")
		}
		return true, ds, nil
	})
	c.PrependReactor("patch", "daemonsets", func(a clienttesting.Action) (bool, runtime.Object, error) {
		p := a.(clienttesting.PatchAction)
		stored, err := c.Tracker().Get(p.GetResource(), p.GetNamespace(), p.GetName())
		if err != nil {
			return true, nil, err
		}
		before, err := json.Marshal(stored)
		if err != nil {
			return true, nil, err
		}
		after, err := strategicpatch.StrategicMergePatch(before, p.GetPatch(), appsv1.DaemonSet{})
		if err != nil {
			return true, nil, err
		}
		ds := &appsv1.DaemonSet{}
		if err := json.Unmarshal(after, ds); err != nil {
			return true, nil, err
		}
		ds.Generation++
		return true, ds, nil
	})
	return c, calls
}

func gatherer(c *fake.Clientset) *Gatherer {
	return &Gatherer{Client: c, Now: func() time.Time { return epoch }}
}

// What is listed gives the same answer as what is known, and no more is listed than is needed.
func TestForWhy(t *testing.T) {
	whole := fleet()
	client, _ := server(whole.objects()...)
	f, err := gatherer(client).ForWhy(t.Context(), "ops", "agent", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := Why(f).Summary, Why(whole).Summary; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}

	settled := running(agent(), nodes(3))
	settled.DaemonSet = agent()
	client, calls := server(settled.objects()...)
	f, err = gatherer(client).ForWhy(t.Context(), "ops", "agent", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"get daemonsets ops", "list nodes", "list pods ops", "list controllerrevisions ops"}
	if !slices.Equal(*calls, want) {
		t.Errorf("asked for %q, want %q", *calls, want)
	}
	if r := Why(f); !r.Settled() || r.Summary != "3 of 3 nodes" {
		t.Errorf("settled: %v, %s", r.Settled(), r.Summary)
	}

	f, err = gatherer(client).ForWhy(t.Context(), "ops", "agent", []string{"n02"})
	if err != nil || len(f.Nodes) != 1 {
		t.Errorf("one node: %v, %v", f, err)
	}
	if _, err = gatherer(client).ForWhy(t.Context(), "ops", "agent", []string{"n99"}); !apierrors.IsNotFound(err) {
		t.Errorf("a node that does not exist: %v", err)
	}
}

// The lease of a node that is not ready says since when: of each such node, or all at once when they are many.
func TestForWhyLeases(t *testing.T) {
	for silent, want := range map[int]string{1: "get leases kube-node-lease", fewNodes + 1: "list leases kube-node-lease"} {
		objects := []runtime.Object{agent(), node("ready")}
		for _, n := range nodes(silent) {
			down(n)
			objects = append(objects, n, &coordinationv1.Lease{
				ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: n.Name},
				Spec:       coordinationv1.LeaseSpec{RenewTime: ptr.To(metav1.NewMicroTime(epoch.Add(-time.Minute)))},
			})
		}
		client, calls := server(objects...)
		f, err := gatherer(client).ForWhy(t.Context(), "ops", "agent", nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(f.Renewed) != silent || !f.Renewed["n01"].Equal(epoch.Add(-time.Minute)) {
			t.Errorf("renewed: %v", f.Renewed)
		}
		if !slices.Contains(*calls, want) {
			t.Errorf("asked for %q, want %q among it", *calls, want)
		}
	}
}

// Who may not list all pods still gets an answer, which says what it does not know.
func TestForWhyForbidden(t *testing.T) {
	ds := agent()
	client, _ := server(ds, node("n"))
	client.PrependReactor("list", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if a.GetNamespace() == "" && a.GetResource().Resource == "pods" || a.GetResource().Resource == "controllerrevisions" {
			return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "", errors.New("no"))
		}
		return false, nil, nil
	})
	f, err := gatherer(client).ForWhy(t.Context(), "ops", "agent", nil)
	if err != nil {
		t.Fatal(err)
	}
	if r := Why(f); len(r.Notes) != 1 || len(r.Nodes[0].Room) != 0 {
		t.Errorf("notes %q, node %+v", r.Notes, r.Nodes[0])
	}
}

// When nothing that can be listed explains a missing pod, the controller's last complaint does.
func TestForWhyEvents(t *testing.T) {
	ds := agent()
	event := &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: "ops", Name: "e"},
		InvolvedObject: corev1.ObjectReference{Kind: "DaemonSet", Name: "agent", UID: ds.UID},
		Type:           corev1.EventTypeWarning, Reason: "FailedCreate", Message: `Error creating: pods "agent-x" is forbidden: violates PodSecurity`,
	}
	client, _ := server(ds, node("n"), event)
	f, err := gatherer(client).ForWhy(t.Context(), "ops", "agent", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(Why(f).Nodes[0].Why, ""); !strings.Contains(got, "violates PodSecurity") {
		t.Errorf("says %q", got)
	}
}

const manifest = `# a comment
---
apiVersion: v1
kind: ConfigMap
metadata: {name: c}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: NAMESPACE}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      tolerations: []
      containers: [{name: agent, image: "agent:2", unknownField: 1}]
`

func read(t *testing.T, text string) []*Manifest {
	t.Helper()
	ms, err := ReadManifests(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return ms
}

func TestReadManifests(t *testing.T) {
	ms := read(t, manifest)
	if len(ms) != 1 || ms[0].Name != "agent" || len(ms[0].Warnings) != 1 || !strings.Contains(ms[0].Warnings[0], "unknownField") {
		t.Fatalf("read %+v", ms)
	}
	if ms = read(t, `{"kind":"List","apiVersion":"v1","items":[{"kind":"DaemonSet","apiVersion":"apps/v1","metadata":{"name":"a"}},{"kind":"Pod"}]}`); len(ms) != 1 {
		t.Errorf("of a list: %+v", ms)
	}
	for name, c := range map[string]struct{ text, want string }{
		"removed version": {"kind: DaemonSet\napiVersion: extensions/v1beta1\nmetadata: {name: a}", "write apiVersion: apps/v1"},
		"no name":         {"kind: DaemonSet\napiVersion: apps/v1", "no metadata.name"},
		"wrong type":      {"kind: DaemonSet\napiVersion: apps/v1\nmetadata: {name: a}\nspec: {minReadySeconds: soon}", "minReadySeconds"},
		"no yaml":         {"a: b: c", "mapping"},
	} {
		if _, err := ReadManifests(strings.NewReader(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A plan writes nothing but dry runs, and sees what apply would change.
func TestDryRunApply(t *testing.T) {
	old := agent(func(ds *appsv1.DaemonSet) {
		ds.Spec.Template.Spec.NodeSelector = map[string]string{"disk": "ssd"} // set by another hand: apply leaves it
		ds.Spec.Template.Spec.PriorityClassName = "was-applied"               // applied before, and no longer there
		ds.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: `{"spec":{"template":{"spec":{"priorityClassName":"was-applied"}}}}`}
	})
	client, calls := server(old, node("n"))
	for namespace, check := range map[string]func(*DryRun) string{
		"ops": func(d *DryRun) string {
			s := d.After.Spec.Template.Spec
			if d.Before == nil || s.Containers[0].Image != "agent:2" || s.NodeSelector["disk"] != "ssd" || s.PriorityClassName != "" {
				return fmt.Sprintf("changed to %+v", s)
			}
			return ""
		},
		"elsewhere": func(d *DryRun) string {
			if d.Before != nil || d.After.Namespace != "elsewhere" || len(d.Notes) != 0 {
				return fmt.Sprintf("created %+v", d)
			}
			return ""
		},
		"absent": func(d *DryRun) string {
			if d.After.Namespace != "absent" || len(d.Notes) != 1 {
				return fmt.Sprintf("created %+v", d)
			}
			return ""
		},
	} {
		m := read(t, strings.ReplaceAll(manifest, "NAMESPACE", namespace))[0]
		d, err := DryRunApply(context.Background(), client, m, "unused")
		if err != nil {
			t.Fatal(err)
		}
		if wrong := check(d); wrong != "" {
			t.Errorf("%s: %s", namespace, wrong)
		}
		f, err := gatherer(client).ForPlan(t.Context(), d.After)
		if err != nil {
			t.Fatal(err)
		}
		if p := NewPlan(f, d); len(p.Nodes) != 1 || p.Summary == "" {
			t.Errorf("%s: planned %+v", namespace, p)
		}
	}
	for _, a := range client.Actions() {
		var dry bool
		switch a := a.(type) {
		case clienttesting.CreateActionImpl:
			dry = len(a.GetCreateOptions().DryRun) == 1
		case clienttesting.PatchActionImpl:
			dry = len(a.GetPatchOptions().DryRun) == 1
		default:
			dry = a.GetVerb() == "get" || a.GetVerb() == "list"
		}
		if !dry {
			t.Errorf("%s %s is no dry run", a.GetVerb(), a.GetResource().Resource)
		}
	}
	if len(*calls) == 0 {
		t.Error("nothing was asked")
	}
}
