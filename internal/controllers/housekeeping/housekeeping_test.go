package housekeeping

import (
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

func TestTableIsDocumented(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range Controllers() {
		if c.Name == "" || len(c.Does) < 20 || c.build == nil {
			t.Errorf("row %q says %q and has a constructor: %v", c.Name, c.Does, c.build != nil)
		}
		if seen[c.Name] {
			t.Errorf("two controllers are called %s", c.Name)
		}
		seen[c.Name] = true
	}
	if len(seen) < 20 {
		t.Errorf("only %d controllers", len(seen))
	}
}

func TestValidateNamesWhatIsMissing(t *testing.T) {
	err := (&Options{}).Validate()
	for _, field := range []string{"Config", "Informers", "CAFile", "CAKeyFile", "SAKeyFile", "ClusterCIDR"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%v does not name %s", err, field)
		}
	}
}

// The garbage collector must not be what fills memory with every object of the cluster.
func TestGarbageCollectorWatchesMetadata(t *testing.T) {
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	shared := informers.NewSharedInformerFactory(fake.NewClientset(), 0)
	g := &garbageInformers{
		shared: shared, full: sharedResources(),
		metadata: metadatainformer.NewSharedInformerFactory(metadatafake.NewSimpleMetadataClient(scheme), 0),
	}
	below := func(i informers.GenericInformer) cache.SharedIndexInformer {
		return i.Informer().(ownershipInformer).SharedIndexInformer
	}
	pods, err := g.ForResource(corev1.SchemeGroupVersion.WithResource("pods"))
	if err != nil || below(pods) != shared.Core().V1().Pods().Informer() {
		t.Errorf("pods are not the shared informer (%v)", err)
	}
	configMaps, err := g.ForResource(corev1.SchemeGroupVersion.WithResource("configmaps"))
	if err != nil {
		t.Fatal(err)
	}
	full, err := shared.ForResource(corev1.SchemeGroupVersion.WithResource("configmaps"))
	if err != nil || below(configMaps) == full.Informer() {
		t.Errorf("ConfigMaps are watched in full (%v)", err)
	}
}

func TestSharedResourcesExist(t *testing.T) {
	f := informers.NewSharedInformerFactory(fake.NewClientset(), 0)
	for r := range sharedResources() {
		if _, err := f.ForResource(r.WithVersion("v1")); err != nil {
			t.Errorf("%s: %v", r, err)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestClientsAreUnthrottledAndNamed(t *testing.T) {
	var agents []string
	c, err := newClients(&rest.Config{Host: "http://192.0.2.1", QPS: 5, Burst: 1, UserAgent: "server",
		Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			agents = append(agents, r.UserAgent())
			return &http.Response{StatusCode: http.StatusNotFound, Body: http.NoBody, Request: r}, nil
		})})
	if err != nil {
		t.Fatal(err)
	}
	client, err := c.kubernetes("some-controller")
	if err != nil {
		t.Fatal(err)
	}
	for range 50 { // with QPS 5 this would take 10 s
		_, _ = client.CoreV1().Pods("a").Get(t.Context(), "p", metav1.GetOptions{})
	}
	if len(agents) != 50 || !strings.HasSuffix(agents[0], "/some-controller") || strings.Contains(agents[0], "server/") {
		t.Errorf("%d requests by %q", len(agents), agents[0])
	}
	if l := client.CoreV1().RESTClient().GetRateLimiter(); l != nil {
		t.Errorf("throttled by %T", l)
	}
}

func TestTrim(t *testing.T) {
	r := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "r", ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m"}}}}
	if _, err := trim(r); err != nil || r.ManagedFields != nil || r.Name != "r" {
		t.Errorf("%v, %v", r, err)
	}
}
