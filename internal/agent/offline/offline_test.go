package offline

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/everynode/everynode/internal/agent/objects"
)

// cache is the objects of a test.
type cache struct {
	known    map[objects.Ref]any
	recalled []string
	changed  func(objects.Ref)
}

func (c *cache) Known(ref objects.Ref) any { return c.known[ref] }
func (c *cache) Heard()                    { c.recalled = nil }
func (c *cache) Subscribe(f func(objects.Ref)) func() {
	c.changed = f
	return func() {}
}

func (c *cache) Recall(configMaps []*corev1.ConfigMap, secrets []*corev1.Secret) {
	for _, cm := range configMaps {
		c.recalled = append(c.recalled, "ConfigMap "+cm.Name+" "+cm.Data["k"])
	}
	for _, s := range secrets {
		c.recalled = append(c.recalled, "Secret "+s.Name+" "+string(s.Data["k"]))
	}
}

func daemon(uid string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "p-" + uid, Namespace: "ns", UID: types.UID(uid), ResourceVersion: "77",
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "DaemonSet", Name: "d", UID: "d", Controller: ptr.To(true)}},
		},
		Spec: corev1.PodSpec{
			NodeName:   "n1",
			Containers: []corev1.Container{{Name: "c", EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "m"}}}}}},
			Volumes:    []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s"}}}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.1"},
	}
}

func objectsOfTest() *cache {
	return &cache{known: map[objects.Ref]any{
		{Kind: objects.ConfigMap, Namespace: "ns", Name: "m"}: &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "m", Namespace: "ns"}, Data: map[string]string{"k": "plain"}},
		{Kind: objects.Secret, Namespace: "ns", Name: "s"}:    &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "ns"}, Data: map[string][]byte{"k": []byte("hunter2")}},
	}}
}

func holder() string { return "n1 of a server" }

func open(t *testing.T, dir string) *Record {
	t.Helper()
	r, err := Open(dir, holder)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// running runs a keeper until the test ends.
func running(t *testing.T, k *Keeper) {
	t.Helper()
	go func() { _ = k.Run(t.Context()) }()
	synctest.Wait()
}

func names(pods []*corev1.Pod) (list []string) {
	for _, pod := range pods {
		list = append(list, pod.Name)
	}
	return list
}

func TestKeeper(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "offline")
	synctest.Test(t, func(t *testing.T) {
		o := objectsOfTest()
		k := NewKeeper(open(t, dir), o)
		running(t, k)
		bare := daemon("bare")
		bare.OwnerReferences[0].Kind = "ReplicaSet"
		for _, pod := range []*corev1.Pod{daemon("a"), daemon("b"), daemon("gone"), bare} {
			k.Keep(pod)
		}
		synctest.Wait()
		k.Drop("gone")
		ending := daemon("b")
		ending.DeletionTimestamp = ptr.To(metav1.Now())
		k.Keep(ending)
		synctest.Wait()

		entries, _ := os.ReadDir(dir)
		var files []string
		for _, e := range entries {
			files = append(files, e.Name())
			info, _ := e.Info()
			if info.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %s", e.Name(), info.Mode())
			}
		}
		if diff := cmp.Diff([]string{"a.pod", "key"}, files); diff != "" {
			t.Errorf("files (-want +got):\n%s", diff)
		}
		sealed, _ := os.ReadFile(filepath.Join(dir, "a.pod"))
		for _, secret := range []string{"hunter2", "aHVudGVyMg", "plain"} {
			if bytes.Contains(sealed, []byte(secret)) {
				t.Errorf("the record shows %q", secret)
			}
		}

		// What changes while a pod runs is no reason to write.
		busy := daemon("a")
		busy.ResourceVersion, busy.Status.PodIP = "78", "10.0.0.2"
		k.Keep(busy)
		synctest.Wait()
		if again, _ := os.ReadFile(filepath.Join(dir, "a.pod")); !bytes.Equal(sealed, again) {
			t.Error("the record was written again though nothing of note has changed")
		}
		o.known[objects.Ref{Kind: objects.Secret, Namespace: "ns", Name: "s"}] = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "ns"}, Data: map[string][]byte{"k": []byte("new")}}
		o.changed(objects.Ref{Kind: objects.Secret, Namespace: "ns", Name: "s"})
		synctest.Wait()

		o = &cache{}
		next := NewKeeper(open(t, dir), o)
		pods := next.Recall(t.Context())
		if diff := cmp.Diff([]string{"p-a"}, names(pods)); diff != "" {
			t.Fatalf("recalled (-want +got):\n%s", diff)
		}
		if pods[0].Status.PodIP != "" || pods[0].ResourceVersion != "1" || pods[0].Status.Phase != corev1.PodPending {
			t.Errorf("recalled %+v", pods[0])
		}
		if diff := cmp.Diff([]string{"ConfigMap m plain", "Secret s new"}, o.recalled); diff != "" {
			t.Errorf("objects (-want +got):\n%s", diff)
		}
		next.Only(func(types.UID) bool { return false })
		running(t, next)
		if pods := NewKeeper(open(t, dir), o).Recall(t.Context()); len(pods) > 0 {
			t.Errorf("the server has none of them, but still recalled: %v", names(pods))
		}
	})
}

// TestUnusableRecords are forgotten, and disturb no other.
func TestUnusableRecords(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "offline")
	synctest.Test(t, func(t *testing.T) {
		o := objectsOfTest()
		k := NewKeeper(open(t, dir), o)
		running(t, k)
		for _, uid := range []string{"a", "b", "c", "d"} {
			k.Keep(daemon(uid))
		}
		synctest.Wait()
		path := func(uid string) string { return filepath.Join(dir, uid+".pod") }
		good, _ := os.ReadFile(path("a"))
		damaged := bytes.Clone(good)
		damaged[len(damaged)/2] ^= 1
		for file, text := range map[string][]byte{path("b"): damaged, path("c"): good, path("d"): good[:10], path("empty"): nil} {
			if err := os.WriteFile(file, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		next := NewKeeper(open(t, dir), &cache{})
		running(t, next)
		if diff := cmp.Diff([]string{"p-a"}, names(next.Recall(t.Context()))); diff != "" {
			t.Errorf("recalled (-want +got):\n%s", diff)
		}
		synctest.Wait()
		if files, _ := filepath.Glob(filepath.Join(dir, "*.pod")); len(files) != 1 {
			t.Errorf("left %v", files)
		}
		// Another key: nothing can be read, and the node goes on.
		if err := os.WriteFile(filepath.Join(dir, "key"), []byte("short"), 0o600); err != nil {
			t.Fatal(err)
		}
		if pods := NewKeeper(open(t, dir), &cache{}).Recall(t.Context()); len(pods) > 0 {
			t.Errorf("recalled with another key: %v", names(pods))
		}
	})
}

// TestRecordThatCannotBeWritten: it is tried again.
func TestRecordThatCannotBeWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "offline")
	synctest.Test(t, func(t *testing.T) {
		k := NewKeeper(open(t, dir), objectsOfTest())
		running(t, k)
		if err := os.MkdirAll(filepath.Join(dir, "a.pod", "in the way"), 0o700); err != nil {
			t.Fatal(err)
		}
		k.Keep(daemon("a"))
		synctest.Wait()
		if err := os.RemoveAll(filepath.Join(dir, "a.pod")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(retryAfter)
		synctest.Wait()
		if pods := NewKeeper(open(t, dir), &cache{}).Recall(t.Context()); len(pods) != 1 {
			t.Errorf("recalled %v", names(pods))
		}
	})
}

// What one server's node remembers is nothing to another's, nor to a machine that is no node.
func TestARecordIsItsHoldersAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "offline")
	synctest.Test(t, func(t *testing.T) {
		k := NewKeeper(open(t, dir), objectsOfTest())
		running(t, k)
		k.Keep(daemon("a"))
		synctest.Wait()
		for _, c := range []struct {
			holder string
			want   int
		}{{"", 0}, {holder(), 1}, {"n1 of another server", 0}} {
			record, err := Open(dir, func() string { return c.holder })
			if err != nil {
				t.Fatal(err)
			}
			if pods := NewKeeper(record, objectsOfTest()).Recall(t.Context()); len(pods) != c.want {
				t.Errorf("%q recalls %v, want %d", c.holder, names(pods), c.want)
			}
		}
	})
}

func TestErase(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "offline")
	open(t, dir)
	for range 2 {
		if err := Erase(dir); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("still there: %v", err)
	}
}

func TestUIDsThatAreNoNames(t *testing.T) {
	r := open(t, filepath.Join(t.TempDir(), "offline"))
	for _, uid := range []types.UID{"", "../x", "a/b", "A", "."} {
		if err := r.save(uid, nil); err == nil {
			t.Errorf("UID %q was taken for a file name", uid)
		}
	}
}

// FuzzRecord: whatever a record holds, it is refused or it is a pod that may be run.
func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"pod":{"metadata":{"uid":"a","name":"p","namespace":"ns","ownerReferences":[{"apiVersion":"apps/v1","kind":"DaemonSet","name":"d","uid":"d","controller":true}]},"spec":{"containers":[{"name":"c"}]}},"configMaps":[null]}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := parse("a", text)
		if err == nil && (!Remembered(e.Pod) || e.Pod.UID != "a") {
			t.Errorf("read %+v", e.Pod)
		}
	})
}

// FuzzSealed: no bytes are taken for a record that this node did not write.
func FuzzSealed(f *testing.F) {
	r, err := Open(filepath.Join(f.TempDir(), "offline"), holder)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := r.open("a", data); err == nil {
			t.Error("taken for a record")
		}
	})
}
