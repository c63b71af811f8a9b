package objects

import (
	"context"
	"strconv"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
)

// fakeAPI serves ConfigMaps, Secrets and tokens the way a node may read them: one
// object a request. Failures are set per call.
type fakeAPI struct {
	kubernetes.Interface
	corev1client.CoreV1Interface

	mu      sync.Mutex
	version int
	objects map[Ref]object
	streams map[*stream]bool
	calls   map[string]int // "list ConfigMap ns/name" → how often
	fail    func(call string) error
	tokens  int
}

type stream struct {
	ref    Ref
	events chan watch.Event
}

func newFakeAPI() *fakeAPI {
	return &fakeAPI{version: 1, objects: map[Ref]object{}, streams: map[*stream]bool{}, calls: map[string]int{}}
}

func (f *fakeAPI) CoreV1() corev1client.CoreV1Interface { return f }

func (f *fakeAPI) ConfigMaps(namespace string) corev1client.ConfigMapInterface {
	return &fakeConfigMaps{api: f, namespace: namespace}
}

func (f *fakeAPI) Secrets(namespace string) corev1client.SecretInterface {
	return &fakeSecrets{api: f, namespace: namespace}
}

func (f *fakeAPI) ServiceAccounts(namespace string) corev1client.ServiceAccountInterface {
	return &fakeAccounts{api: f, namespace: namespace}
}

func (f *fakeAPI) call(verb string, ref Ref) error {
	call := verb + " " + ref.String()
	f.calls[call]++
	if f.fail != nil {
		return f.fail(call)
	}
	return nil
}

func (f *fakeAPI) count(call string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[call]
}

func (f *fakeAPI) failWith(fail func(call string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = fail
}

func (f *fakeAPI) send(ref Ref, t watch.EventType, obj object) {
	for s := range f.streams {
		if s.ref == ref {
			s.events <- watch.Event{Type: t, Object: obj.DeepCopyObject()}
		}
	}
}

func (f *fakeAPI) put(ref Ref, obj object) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.version++
	t := watch.Modified
	if f.objects[ref] == nil {
		t = watch.Added
	}
	obj.SetNamespace(ref.Namespace)
	obj.SetName(ref.Name)
	obj.SetResourceVersion(strconv.Itoa(f.version))
	f.objects[ref] = obj
	f.send(ref, t, obj)
}

func (f *fakeAPI) remove(ref Ref) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.version++
	obj := f.objects[ref]
	obj.SetResourceVersion(strconv.Itoa(f.version))
	delete(f.objects, ref)
	f.send(ref, watch.Deleted, obj)
}

// breakStreams ends every watch, with an event first if one is given.
func (f *fakeAPI) breakStreams(last *watch.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.streams {
		if last != nil {
			s.events <- *last
		}
		close(s.events)
		delete(f.streams, s)
	}
}

func (f *fakeAPI) open() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.streams)
}

func (f *fakeAPI) read(verb string, ref Ref) (object, string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.call(verb, ref); err != nil {
		return nil, "", err
	}
	obj := f.objects[ref]
	if obj != nil {
		obj = obj.DeepCopyObject().(object)
	}
	return obj, strconv.Itoa(f.version), nil
}

func (f *fakeAPI) startWatch(ctx context.Context, ref Ref) (watch.Interface, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.call("watch", ref); err != nil {
		return nil, err
	}
	s := &stream{ref: ref, events: make(chan watch.Event, 100)}
	f.streams[s] = true
	context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.streams, s)
	})
	return &fakeWatch{events: s.events}, nil
}

type fakeWatch struct{ events chan watch.Event }

func (w *fakeWatch) Stop()                          {}
func (w *fakeWatch) ResultChan() <-chan watch.Event { return w.events }

func named(o metav1.ListOptions) string {
	s, err := fields.ParseSelector(o.FieldSelector)
	if err != nil {
		panic(err)
	}
	name, ok := s.RequiresExactMatch("metadata.name")
	if !ok {
		panic("a node may only read single objects, but the selector is " + o.FieldSelector)
	}
	return name
}

type fakeConfigMaps struct {
	corev1client.ConfigMapInterface
	api       *fakeAPI
	namespace string
}

func (f *fakeConfigMaps) ref(name string) Ref {
	return Ref{Kind: ConfigMap, Namespace: f.namespace, Name: name}
}

func (f *fakeConfigMaps) Get(_ context.Context, name string, _ metav1.GetOptions) (*corev1.ConfigMap, error) {
	obj, _, err := f.api.read("get", f.ref(name))
	if err != nil {
		return nil, err
	}
	if obj == nil {
		return nil, notFound(f.ref(name))
	}
	return obj.(*corev1.ConfigMap), nil
}

func (f *fakeConfigMaps) List(_ context.Context, o metav1.ListOptions) (*corev1.ConfigMapList, error) {
	obj, version, err := f.api.read("list", f.ref(named(o)))
	if err != nil {
		return nil, err
	}
	l := &corev1.ConfigMapList{ListMeta: metav1.ListMeta{ResourceVersion: version}}
	if obj != nil {
		l.Items = append(l.Items, *obj.(*corev1.ConfigMap))
	}
	return l, nil
}

func (f *fakeConfigMaps) Watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	return f.api.startWatch(ctx, f.ref(named(o)))
}

type fakeSecrets struct {
	corev1client.SecretInterface
	api       *fakeAPI
	namespace string
}

func (f *fakeSecrets) ref(name string) Ref {
	return Ref{Kind: Secret, Namespace: f.namespace, Name: name}
}

func (f *fakeSecrets) List(_ context.Context, o metav1.ListOptions) (*corev1.SecretList, error) {
	obj, version, err := f.api.read("list", f.ref(named(o)))
	if err != nil {
		return nil, err
	}
	l := &corev1.SecretList{ListMeta: metav1.ListMeta{ResourceVersion: version}}
	if obj != nil {
		l.Items = append(l.Items, *obj.(*corev1.Secret))
	}
	return l, nil
}

func (f *fakeSecrets) Watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	return f.api.startWatch(ctx, f.ref(named(o)))
}

type fakeAccounts struct {
	corev1client.ServiceAccountInterface
	api       *fakeAPI
	namespace string
}

func (f *fakeAccounts) CreateToken(_ context.Context, name string, tr *authenticationv1.TokenRequest, _ metav1.CreateOptions) (*authenticationv1.TokenRequest, error) {
	f.api.mu.Lock()
	defer f.api.mu.Unlock()
	if err := f.api.call("token", Ref{Kind: "ServiceAccount", Namespace: f.namespace, Name: name}); err != nil {
		return nil, err
	}
	f.api.tokens++
	out := tr.DeepCopy()
	if out.Spec.ExpirationSeconds == nil {
		hour := int64(3600)
		out.Spec.ExpirationSeconds = &hour
	}
	out.Status.Token = name + "-" + strconv.Itoa(f.api.tokens)
	// The server's clock is two hours behind.
	out.Status.ExpirationTimestamp = metav1.NewTime(time.Now().Add(time.Duration(*out.Spec.ExpirationSeconds)*time.Second - 2*time.Hour))
	return out, nil
}

func forbidden(string) error {
	return apierrors.NewForbidden(corev1.Resource("configmaps"), "x", nil)
}
