package volumes

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/everynode/everynode/internal/agent/objects"
)

// fakeObjects holds objects of the namespace "ns" by name.
type fakeObjects struct {
	mu         sync.Mutex
	configMaps map[string]map[string]string
	secrets    map[string]map[string]string
	claims     map[string]*corev1.PersistentVolumeClaim
	volumes    map[string]*corev1.PersistentVolume
	err        error
	tokenErr   error
	tokens     int
	requests   []*authenticationv1.TokenRequest
	listener   func(objects.Ref)
	registered map[types.UID]bool
}

func newFakeObjects() *fakeObjects {
	return &fakeObjects{
		configMaps: map[string]map[string]string{}, secrets: map[string]map[string]string{},
		claims: map[string]*corev1.PersistentVolumeClaim{}, volumes: map[string]*corev1.PersistentVolume{},
		registered: map[types.UID]bool{},
	}
}

func (f *fakeObjects) ConfigMap(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	data, ok := f.configMaps[name]
	if !ok {
		return nil, apierrors.NewNotFound(corev1.Resource("configmaps"), name)
	}
	return &corev1.ConfigMap{Data: maps.Clone(data)}, nil
}

func (f *fakeObjects) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	data, ok := f.secrets[name]
	if !ok {
		return nil, apierrors.NewNotFound(corev1.Resource("secrets"), name)
	}
	out := &corev1.Secret{Data: map[string][]byte{}}
	for k, v := range data {
		out.Data[k] = []byte(v)
	}
	return out, nil
}

func (f *fakeObjects) Token(_ context.Context, _, account string, tr *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.tokenErr != nil {
		return nil, f.tokenErr
	}
	if f.err != nil {
		return nil, f.err
	}
	f.tokens++
	f.requests = append(f.requests, tr)
	out := tr.DeepCopy()
	out.Status.Token = account + "-" + strconv.Itoa(f.tokens)
	out.Status.ExpirationTimestamp = metav1.NewTime(time.Now().Add(time.Duration(*tr.Spec.ExpirationSeconds) * time.Second))
	return out, nil
}

func (f *fakeObjects) PersistentVolumeClaim(_ context.Context, _, name string) (*corev1.PersistentVolumeClaim, error) {
	if c := f.claims[name]; c != nil {
		return c, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("persistentvolumeclaims"), name)
}

func (f *fakeObjects) PersistentVolume(_ context.Context, name string) (*corev1.PersistentVolume, error) {
	if v := f.volumes[name]; v != nil {
		return v, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("persistentvolumes"), name)
}

func (f *fakeObjects) Register(pod *corev1.Pod)    { f.registered[pod.UID] = true }
func (f *fakeObjects) Unregister(pod *corev1.Pod)  { f.UnregisterUID(pod.UID) }
func (f *fakeObjects) UnregisterUID(uid types.UID) { delete(f.registered, uid) }
func (f *fakeObjects) Subscribe(l func(objects.Ref)) (cancel func()) {
	f.listener = l
	return func() {}
}

func (f *fakeObjects) setConfigMap(name string, data map[string]string) {
	f.mu.Lock()
	f.configMaps[name] = data
	f.mu.Unlock()
	f.listener(objects.Ref{Kind: objects.ConfigMap, Namespace: "ns", Name: name})
}

func (f *fakeObjects) failWith(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// world is a manager over a folder of its own, which is cleaned up whatever a
// test leaves mounted in it.
type world struct {
	*Manager
	t       testing.TB
	root    string
	objects *fakeObjects
}

func newWorld(t testing.TB) *world {
	t.Helper()
	root := filepath.Join(t.TempDir(), "pods")
	t.Cleanup(func() {
		if err := unmountUnder(root); err != nil {
			t.Errorf("cleaning up: %v", err)
		}
	})
	fake := newFakeObjects()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"zone": "a"}}}
	return &world{Manager: New(Options{Root: root, Objects: fake, NodeName: "n1", Node: func() *corev1.Node { return node }}), t: t, root: root, objects: fake}
}

func (w *world) setup(pod *corev1.Pod) map[string]Volume {
	w.t.Helper()
	vols, err := w.Setup(context.Background(), pod, Facts{})
	if err != nil {
		w.t.Fatalf("Setup: %v", err)
	}
	return vols
}

func (w *world) teardown(uid types.UID) {
	w.t.Helper()
	if err := w.Teardown(context.Background(), uid); err != nil {
		w.t.Fatalf("Teardown: %v", err)
	}
	if exists(filepath.Join(w.root, string(uid))) {
		w.t.Errorf("the folder of pod %s is still there", uid)
	}
	if mounts := mountsUnder(w.t, w.root); len(mounts) > 0 && w.onlyPod(uid) {
		w.t.Errorf("mounts are left: %v", mounts)
	}
}

func (w *world) onlyPod(uid types.UID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, known := w.pods[uid]
	return len(w.pods) == 0 || known && len(w.pods) == 1
}

// podOf makes a pod in namespace "ns" from the YAML of a spec. Volumes that no
// container mounts get one that mounts them all.
func podOf(t testing.TB, uid, spec string) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "ns", Name: "pod-" + uid, UID: types.UID(uid), Labels: map[string]string{"app": "web"},
	}}
	if err := yaml.UnmarshalStrict([]byte(spec), &pod.Spec); err != nil {
		t.Fatalf("the test's own YAML: %v\n%s", err, spec)
	}
	if len(pod.Spec.Volumes) > 0 && len(mounted(&pod.Spec)) == 0 {
		c := corev1.Container{Name: "all"}
		for _, v := range pod.Spec.Volumes {
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: v.Name, MountPath: "/" + v.Name})
		}
		pod.Spec.Containers = append(pod.Spec.Containers, c)
	}
	return pod
}

func read(t testing.TB, parts ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func write(t testing.TB, data string, parts ...string) string {
	t.Helper()
	path := filepath.Join(parts...)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func stat(t testing.TB, path string) unix.Stat_t {
	t.Helper()
	var s unix.Stat_t
	if err := unix.Stat(path, &s); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return s
}

// mode is a file's permissions and special bits, as chmod takes them.
func mode(t testing.TB, path string) uint32 {
	t.Helper()
	return stat(t, path).Mode & 0o7777
}

func isTmpfs(t testing.TB, path string) bool {
	t.Helper()
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		t.Fatal(err)
	}
	return s.Type == unix.TMPFS_MAGIC && stat(t, path).Dev != stat(t, filepath.Dir(path)).Dev
}
