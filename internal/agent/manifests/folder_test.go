package manifests

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, f *Folder) Reading {
	t.Helper()
	r, err := f.Read()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// names are the pods of a reading in short.
func names(r Reading) string {
	var list []string
	for _, pod := range r.Pods {
		list = append(list, FullName(pod))
	}
	return strings.Join(list, " ")
}

// problems are those of a reading by file, without the folder.
func problems(dir string, r Reading) string {
	var list []string
	for _, p := range r.Problems {
		text := strings.TrimPrefix(p.File, dir+"/") + ": " + p.Message
		if p.Minor {
			text += " (minor)"
		}
		list = append(list, text)
	}
	return strings.Join(list, "\n")
}

func pod(name string) string {
	return "apiVersion: v1\nkind: Pod\nmetadata: {name: " + name + "}\nspec: {containers: [{name: c, image: i}]}\n"
}

func TestFolder(t *testing.T) {
	dir := t.TempDir()
	f := NewFolder(dir, "Node1")
	if r := read(t, NewFolder(filepath.Join(dir, "none"), "n")); names(r) != "" || len(r.Problems) > 0 {
		t.Errorf("a folder that is not there: %+v", r)
	}
	write(t, dir, "b.yaml", pod("b")+"---\n# nothing\n---\n"+pod("a"))
	write(t, dir, "c.json", `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "c", "namespace": "kube-system"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}`)
	write(t, dir, "d.yaml", "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: d}, spec: {containers: [{name: c, image: i}]}}\n")
	write(t, dir, ".hidden.yaml", "not yaml: [")
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	first := read(t, f)
	if got := names(first); got != "default/a-node1 default/b-node1 default/d-node1 kube-system/c-node1" || len(first.Problems) > 0 {
		t.Fatalf("pods %s, problems %s", got, problems(dir, first))
	}
	if second := read(t, f); !first.same(second) {
		t.Error("nothing has changed, but the pods are others")
	}

	// A second file with the same pod, a file that was broken, and one whose one document was.
	write(t, dir, "c.json~", strings.Replace(pod("c"), "{name: c}", "{name: c, namespace: kube-system}", 1))
	write(t, dir, "d.yaml", "kind: [")
	write(t, dir, "b.yaml", pod("b")+"---\nkind: Deployment\napiVersion: apps/v1\nmetadata: {name: x}\n")
	r := read(t, f)
	if got := names(r); got != names(first) {
		t.Errorf("pods %s", got)
	}
	want := "b.yaml: document 2: apiVersion \"apps/v1\", kind \"Deployment\": a static pod must be apiVersion: v1, kind: Pod\n" +
		"c.json~: pod kube-system/c-node1 stands in " + dir + "/c.json already; this one does not run\n" +
		"d.yaml: yaml: line 1: did not find expected node content"
	if diff := cmp.Diff(want, problems(dir, r)); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{dir + "/b.yaml", dir + "/d.yaml"}, r.Unread); diff != "" {
		t.Errorf("unread (-want +got):\n%s", diff)
	}

	// Mended, gone, and a file that is none.
	write(t, dir, "b.yaml", pod("b"))
	for _, name := range []string{"c.json", "c.json~", "d.yaml"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "link.yaml")); err != nil {
		t.Fatal(err)
	}
	r = read(t, f)
	if got := problems(dir, r); names(r) != "default/b-node1" || !strings.Contains(got, "pipe: it is a p---------: a manifest must be a regular file") || !strings.Contains(got, "link.yaml: ") {
		t.Errorf("pods %s, problems %s", names(r), got)
	}
}

func TestFolderThatCannotBeRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, filepath.Dir(file), "file", "")
	if _, err := NewFolder(file, "n").Read(); err == nil {
		t.Error("a file was taken for an empty folder: its pods would be ended")
	}
}

func TestStaticPod(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "p.yaml", `
apiVersion: v1
kind: Pod
metadata:
  name: p
  uid: mine
  finalizers: [x]
  ownerReferences: [{apiVersion: v1, kind: Node, name: other, uid: u}]
  labels: {a: b}
  annotations: {note: x, kubernetes.io/config.mirror: forged}
spec:
  nodeName: another
  priorityClassName: system-node-critical
  containers: [{name: c, image: i}]
status: {phase: Running}
`)
	r := read(t, NewFolder(dir, "n1"))
	if len(r.Problems) > 0 || len(r.Pods) != 1 {
		t.Fatalf("%+v", r)
	}
	p := r.Pods[0]
	if !IsStatic(p) || len(p.UID) != 32 || p.Spec.NodeName != "n1" || p.Status.Phase != corev1.PodPending || len(p.OwnerReferences)+len(p.Finalizers) > 0 || *p.Spec.Priority != 2000001000 {
		t.Errorf("pod %+v", p)
	}
	want := map[string]string{"note": "x", "kubernetes.io/config.hash": string(p.UID), "kubernetes.io/config.source": "file", "everynode.io/manifest": dir + "/p.yaml"}
	if diff := cmp.Diff(want, p.Annotations); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]corev1.Toleration{{Operator: "Exists", Effect: "NoExecute"}}, p.Spec.Tolerations); diff != "" {
		t.Errorf("tolerations (-want +got):\n%s", diff)
	}
	if other := read(t, NewFolder(dir, "n2")).Pods[0]; other.UID == p.UID {
		t.Error("two nodes have pods of the same UID")
	}
}

func TestRefusedPods(t *testing.T) {
	for name, c := range map[string]struct{ change, want string }{
		"no name":              {"metadata: {name: p}|metadata: {generateName: p}", "metadata.name: Required value"},
		"a bad name":           {"metadata: {name: p}|metadata: {name: P_}", `metadata.name: Invalid value: "P_-n1"`},
		"a path for a name":    {"metadata: {name: p}|metadata: {name: ../../p}", "metadata.name: Invalid value"},
		"a bad namespace":      {"metadata: {name: p}|metadata: {name: p, namespace: ../x}", "metadata.namespace: Invalid value"},
		"no containers":        {"containers: [{name: c, image: i}]|containers: []", "spec.containers: Required value"},
		"no image":             {"image: i|image: ''", "spec.containers[0].image: Required value"},
		"twice the same":       {"[{name: c, image: i}]|[{name: c, image: i}, {name: c, image: i}]", `spec.containers[1].name: Duplicate value: "c"`},
		"a path for container": {"[{name: c,|[{name: ../c,", "spec.containers[0].name: Invalid value"},
		"a missing volume":     {"image: i|image: i, volumeMounts: [{name: v, mountPath: /v}]", `spec.containers[0].volumeMounts[0].name: Not found: "v"`},
		"a secret volume":      {"containers:|volumes: [{name: v, secret: {secretName: s}}], containers:", "Secret default/s, but a static pod must not need a server"},
		"a configMap in env":   {"image: i|image: i, envFrom: [{configMapRef: {name: m}}]", "ConfigMap default/m"},
		"a service account":    {"containers:|serviceAccountName: x, containers:", "spec.serviceAccountName: Forbidden"},
		"a token":              {"containers:|volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: t}}]}}], containers:", "serviceAccountToken needs an API object"},
		"a claim":              {"containers:|volumes: [{name: v, persistentVolumeClaim: {claimName: c}}], containers:", "persistentVolumeClaim needs an API object"},
		"a restart policy":     {"containers:|restartPolicy: Sometimes, containers:", "spec.restartPolicy: Unsupported value"},
		"a negative grace":     {"containers:|terminationGracePeriodSeconds: -1, containers:", "spec.terminationGracePeriodSeconds: Invalid value"},
		"requests over limits": {"image: i|image: i, resources: {requests: {cpu: 2}, limits: {cpu: 1}}", "must not be more than the limit of 1"},
		"a probe of no kind":   {"image: i|image: i, livenessProbe: {periodSeconds: 1}", "spec.containers[0].livenessProbe: Invalid value"},
		"a port":               {"image: i|image: i, ports: [{containerPort: 70000}]", "spec.containers[0].ports[0].containerPort: Invalid value"},
		"a wrong type":         {"containers: [{name: c, image: i}]|containers: 5", "spec.containers: got a number"},
		"another kind":         {"kind: Pod|kind: Deployment", `kind "Deployment": a static pod must be`},
		"a list":               {"apiVersion: v1|- apiVersion: v1", "yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			old, replacement, _ := strings.Cut(c.change, "|")
			text := strings.Replace(pod("p"), old, replacement, 1)
			if text == pod("p") {
				t.Fatalf("%q is not in the manifest", old)
			}
			write(t, dir, "p.yaml", text)
			r := read(t, NewFolder(dir, "n1"))
			if got := problems(dir, r); len(r.Pods) > 0 || !strings.Contains(got, c.want) {
				t.Errorf("pods %s, problems %q, want %q", names(r), got, c.want)
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "p.yaml", strings.Replace(pod("p"), "image: i", "image: i, imgae: j", 1))
	write(t, dir, "q.yaml", strings.Replace(pod("q"), "image: i", "image: i, image: i", 1))
	write(t, dir, "r.yaml", "# nothing\n")
	r := read(t, NewFolder(dir, "n1"))
	got := problems(dir, r)
	for _, want := range []string{`p.yaml: pod "p": unknown field "spec.containers[0].imgae" is not heard (minor)`, `key "image" already set in map (minor)`, "r.yaml: it holds no pod (minor)"} {
		if !strings.Contains(got, want) {
			t.Errorf("problems %q lack %q", got, want)
		}
	}
	if names(r) != "default/p-n1 default/q-n1" || len(r.Unread) > 0 {
		t.Errorf("pods %s, unread %v: what is merely odd runs", names(r), r.Unread)
	}
}

// TestFollow: the folder appears, files come, change and go, and a file is written in pieces.
func TestFollow(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etc", "manifests")
	seen := make(chan Reading, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		NewFolder(dir, "n1").Follow(ctx, func(r Reading) { seen <- r })
	}()
	defer func() { cancel(); <-done }()
	next := func(want string) {
		t.Helper()
		select {
		case r := <-seen:
			if names(r) != want {
				t.Errorf("pods %q, want %q (problems %v)", names(r), want, r.Problems)
			}
		case <-time.After(10 * time.Second): // well below the rescan
			t.Fatalf("not told of %q", want)
		}
	}
	next("")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "a.yaml", pod("a"))
	next("default/a-n1")
	file, err := os.Create(filepath.Join(dir, "b.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, piece := range strings.SplitAfter(pod("b"), "\n") {
		if _, err := file.WriteString(piece); err != nil {
			t.Fatal(err)
		}
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	next("default/a-n1 default/b-n1")
	write(t, dir, ".new", pod("c"))
	if err := os.Rename(filepath.Join(dir, ".new"), filepath.Join(dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	next("default/b-n1 default/c-n1")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for r := range seen { // the files go one by one
		if len(r.Pods) == 0 {
			break
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "d.yaml", pod("d"))
	next("default/d-n1")
}

func TestPullPolicy(t *testing.T) {
	for image, want := range map[string]corev1.PullPolicy{
		"i": corev1.PullAlways, "i:latest": corev1.PullAlways, "i:1": corev1.PullIfNotPresent, "localhost:5000/i": corev1.PullAlways,
		"i@sha256:" + strings.Repeat("a", 64): corev1.PullIfNotPresent, "NOT AN IMAGE": corev1.PullIfNotPresent,
	} {
		if got := pullPolicy(image); got != want {
			t.Errorf("%s: %s, want %s", image, got, want)
		}
	}
}
