package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/server/v3/embed"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/everynode/everynode/internal/store"
)

func TestReadySoon(t *testing.T) {
	c := shared(t)
	t.Logf("ready after %s", c.elapsed)
	if limit := 20 * time.Second; c.elapsed > limit { // generous: the machine may be busy; the benchmark holds the 3 s
		t.Errorf("ready after %s, more than %s", c.elapsed, limit)
	}
	for _, ns := range systemNamespaces() {
		if _, err := c.admin(t).CoreV1().Namespaces().Get(t.Context(), ns, metav1.GetOptions{}); err != nil {
			t.Errorf("a ready server has no namespace %s: %v", ns, err)
		}
	}
	svc, err := c.admin(t).CoreV1().Services("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		eventually(t, "Service kubernetes", func(ctx context.Context) error {
			svc, err = c.admin(t).CoreV1().Services("default").Get(ctx, "kubernetes", metav1.GetOptions{})
			return err
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	if svc.Spec.ClusterIP != "10.43.0.1" {
		t.Errorf("Service kubernetes is %s", svc.Spec.ClusterIP)
	}
	if _, err := c.admin(t).SchedulingV1().PriorityClasses().Get(t.Context(), "system-node-critical", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
}

// What is served is a decision: each kind here has its controller.
func TestResources(t *testing.T) {
	c := shared(t)
	_, lists, err := c.admin(t).Discovery().ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, l := range lists {
		for _, r := range l.APIResources {
			sort.Strings(r.Verbs)
			lines = append(lines, fmt.Sprintf("%s %s %s", l.GroupVersion, r.Name, strings.Join(r.Verbs, ",")))
		}
	}
	sort.Strings(lines)
	golden(t, "resources.txt", strings.Join(lines, "\n")+"\n")
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got; -update accepts):\n%s", path, d)
	}
}

// A bare name like "events" belongs to the group that comes first.
func TestGroupOrder(t *testing.T) {
	c := shared(t)
	groups, err := c.admin(t).Discovery().ServerGroups()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, g := range groups.Groups {
		names = append(names, g.Name)
	}
	want := []string{""}
	for _, g := range servedGroups() {
		want = append(want, g.version.Group)
	}
	if d := cmp.Diff(want, names); d != "" {
		t.Errorf("order of groups (-want +got):\n%s", d)
	}
}

func TestSystemEndpoints(t *testing.T) {
	c := shared(t)
	for path, want := range map[string]string{
		"/healthz": "ok", "/livez": "ok", "/readyz": "ok",
		"/metrics":                            "apiserver_request_total",
		"/version":                            `"emulationMinor": "36"`,
		"/openapi/v2":                         "io.k8s.api.apps.v1.DaemonSet",
		"/openapi/v3/apis/apps/v1":            "io.k8s.api.apps.v1.DaemonSet",
		"/.well-known/openid-configuration":   issuer,
		"/readyz/etcd-has-space":              "ok",
		"/apis":                               "rbac.authorization.k8s.io",
		"/api/v1/namespaces/default?pretty=1": `"default"`,
	} {
		b, err := c.admin(t).RESTClient().Get().RequestURI(path).DoRaw(t.Context())
		if err != nil {
			t.Errorf("%s: %v", path, err)
		} else if !strings.Contains(string(b), want) {
			t.Errorf("%s: %.200s… lacks %q", path, b, want)
		}
	}
}

// Clients download the schemas group by group and trip over a reference to one that is left out.
func TestSchemasAreComplete(t *testing.T) {
	c := shared(t)
	paths, err := c.admin(t).Discovery().OpenAPIV3().Paths()
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) < len(servedGroups()) {
		t.Errorf("only %d documents", len(paths))
	}
	const ref = `"#/components/schemas/`
	for path, gv := range paths {
		doc, err := gv.Schema("application/json")
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		for rest := string(doc); ; {
			i := strings.Index(rest, ref)
			if i < 0 {
				break
			}
			rest = rest[i+len(ref):]
			name := rest[:strings.IndexByte(rest, '"')]
			if !strings.Contains(string(doc), `"`+name+`":{`) {
				t.Errorf("%s refers to %s, which it does not have", path, name)
			}
		}
	}
}

// Lists without a resourceVersion and watches that begin with a list must not reach etcd.
func TestServedFromCache(t *testing.T) {
	c := shared(t)
	ctx, client := t.Context(), c.admin(t)
	ns := c.namespace(t, nil)
	if _, err := client.CoreV1().ConfigMaps(ns).Create(ctx, configMap("a", nil), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	consistent := map[string]string{"resource": "configmaps", "success": "true", "fallback": "false"}
	etcdLists := map[string]string{"operation": "list", "resource": "configmaps"}
	before, listed := counter(t, "apiserver_watch_cache_consistent_read_total", consistent), counter(t, "etcd_requests_total", etcdLists)

	list, err := client.CoreV1().ConfigMaps(ns).List(ctx, metav1.ListOptions{})
	if err != nil || len(list.Items) != 1 {
		t.Fatalf("list: %v, %v", list, err)
	}
	if got := counter(t, "apiserver_watch_cache_consistent_read_total", consistent); got != before+1 {
		t.Errorf("%v consistent reads from the cache, want one more than %v", got, before)
	}

	yes := true
	w, err := client.CoreV1().ConfigMaps(ns).Watch(ctx, metav1.ListOptions{
		SendInitialEvents: &yes, AllowWatchBookmarks: true, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	var seen []string
	for e := range w.ResultChan() {
		m := e.Object.(metav1.Object)
		if m.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true" {
			break
		}
		seen = append(seen, m.GetName())
	}
	if !slices.Equal(seen, []string{"a"}) {
		t.Errorf("initial events: %v", seen)
	}
	if got := counter(t, "etcd_requests_total", etcdLists); got != listed {
		t.Errorf("etcd was listed %v times", got-listed)
	}
}

func TestRestart(t *testing.T) {
	dir := t.TempDir()
	ctx := t.Context()
	c := start(t, dir)
	client := c.admin(t)
	taken, err := client.CoreV1().Services("default").Create(ctx, service("a", ""), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	c.stop()
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("stopping took %s", d)
	}

	c = run(t, dir)
	client = c.admin(t)
	again, err := client.CoreV1().Services("default").Get(ctx, "a", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if again.UID != taken.UID || again.Spec.ClusterIP != taken.Spec.ClusterIP {
		t.Errorf("before: %s %s, after: %s %s", taken.UID, taken.Spec.ClusterIP, again.UID, again.Spec.ClusterIP)
	}
	if _, err := client.CoreV1().Services("default").Create(ctx, service("b", taken.Spec.ClusterIP), metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("a second Service with %s: %v", taken.Spec.ClusterIP, err)
	}
	if err := client.CoreV1().Services("default").Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Services("default").Create(ctx, service("b", taken.Spec.ClusterIP), metav1.CreateOptions{}); err != nil {
		t.Errorf("a Service with the freed %s: %v", taken.Spec.ClusterIP, err)
	}
}

// A stop does not wait for those who hold connections.
func TestStopsWithClients(t *testing.T) {
	c := start(t, t.TempDir())
	t.Cleanup(c.stop)
	w, err := c.admin(t).CoreV1().Pods("").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	slow, err := net.Dial("tcp", c.server.Address().String()) // never says anything
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = slow.Close() }()
	begin := time.Now()
	c.cancel()
	if err := <-c.done; err != nil {
		t.Errorf("stop: %v", err)
	}
	c.done <- nil
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("stopping took %s", d)
	}
}

func TestFullStore(t *testing.T) {
	c := run(t, t.TempDir(), func(s *store.Options, _ *Options) { s.Quota = 6 << 20 })
	ctx, client := t.Context(), c.admin(t)
	big := map[string]string{"k": strings.Repeat("x", 500<<10)}
	var err error
	n := 0
	for ; n < 100 && err == nil; n++ {
		_, err = client.CoreV1().ConfigMaps("default").Create(ctx, configMap(fmt.Sprintf("big-%d", n), big), metav1.CreateOptions{})
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Code != http.StatusInsufficientStorage || !strings.Contains(err.Error(), "NOSPACE") {
		t.Fatalf("after %d writes: %v", n, err)
	}
	check := func(ctx context.Context, path string) (string, error) {
		b, err := client.RESTClient().Get().AbsPath(path).DoRaw(ctx)
		return string(b), err
	}
	if out, err := check(ctx, "/readyz"); err == nil || !strings.Contains(out, "[-]etcd-has-space failed") {
		t.Errorf("readyz of a full server: %v\n%s", err, out)
	}
	if out, err := check(ctx, "/readyz/etcd-has-space"); err == nil || !strings.Contains(out, "delete objects") {
		t.Errorf("the reason is not given: %v\n%s", err, out)
	}
	if out, err := check(ctx, "/livez"); err != nil {
		t.Errorf("livez of a full server: %v\n%s", err, out)
	}
	if _, err := client.CoreV1().ConfigMaps("default").List(ctx, metav1.ListOptions{}); err != nil {
		t.Errorf("a full server does not read: %v", err)
	}
	for i := range n - 1 {
		if err := client.CoreV1().ConfigMaps("default").Delete(ctx, fmt.Sprintf("big-%d", i), metav1.DeleteOptions{}); err != nil {
			t.Fatalf("a full server does not delete: %v", err)
		}
	}
	eventually(t, "recovery", func(ctx context.Context) error {
		out, err := check(ctx, "/readyz")
		if err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	})
	if _, err := client.CoreV1().ConfigMaps("default").Create(ctx, configMap("small", nil), metav1.CreateOptions{}); err != nil {
		t.Errorf("after recovery: %v", err)
	}
}

// A server whose etcd has failed for good ends with the reason.
func TestStoreFailure(t *testing.T) {
	c := prepare(t, t.TempDir())
	t.Cleanup(c.store.Close)
	failed := make(chan struct{})
	c.server.store = burning(failed)
	go func() { c.done <- c.server.Run(c.ctx) }()
	<-c.server.Ready()
	close(failed)
	select {
	case err := <-c.done:
		if err == nil || !strings.Contains(err.Error(), "the disk is on fire") {
			t.Errorf("server ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("server goes on")
	}
}

type burning chan struct{}

func (b burning) Failed() <-chan struct{} { return b }
func (b burning) Err() error              { return errors.New("the disk is on fire") }

func TestAddresses(t *testing.T) {
	// 192.0.2.1 is nobody's, as the pod bridge's address is before the agent has made the bridge.
	c := run(t, t.TempDir(), func(_ *store.Options, o *Options) {
		o.ExtraListen = []string{"127.0.0.3:0", "192.0.2.1:0"}
		o.AdvertiseIP = net.ParseIP("192.0.2.7")
	})
	config := c.as(t, "admin", "system:masters")
	config.Host = fmt.Sprintf("https://127.0.0.3:%d", c.server.Address().Port)
	if _, err := clientFor(t, config).Discovery().ServerVersion(); err != nil {
		t.Errorf("the extra address: %v", err)
	}
	chain := handshake(t, c.server.Address().String())
	if last := chain[len(chain)-1]; !last.Equal(parseCertificate(t, c.pki.CACert())) {
		t.Errorf("the chain ends with %s, not with the CA", last.Subject)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"localhost", host, "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
		"127.0.0.1", "::1", "10.43.0.1", "10.42.0.1", "127.0.0.3", "192.0.2.1", "192.0.2.7",
	} {
		if err := chain[0].VerifyHostname(name); err != nil {
			t.Errorf("the certificate: %v", err)
		}
	}
}

func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, err = listen(t.Context(), "127.0.0.1:0", []string{l.Addr().String()})
	if err == nil || !strings.Contains(err.Error(), l.Addr().String()+" is already in use") || !strings.Contains(err.Error(), "--listen") {
		t.Errorf("got %v", err)
	}
	_, err = listen(t.Context(), "192.0.2.1:0", nil)
	if err == nil || !strings.Contains(err.Error(), "not an address of this machine") {
		t.Errorf("got %v", err)
	}
}

// Several servers are listed while they live; one that only its machine can reach never is.
func TestEndpoints(t *testing.T) {
	etcd := startEtcd(t)
	advertise := func(ip string) setting {
		return func(s *store.Options, o *Options) {
			s.Endpoints = []string{etcd}
			o.AdvertiseIP = net.ParseIP(ip)
		}
	}
	dir := t.TempDir()
	a := run(t, dir, advertise("192.0.2.1"))
	awaitEndpoints(t, a, "192.0.2.1")
	b := start(t, dir, advertise("192.0.2.2"))
	awaitEndpoints(t, a, "192.0.2.1", "192.0.2.2")
	c := start(t, dir, func(s *store.Options, _ *Options) { s.Endpoints = []string{etcd} })
	c.stop()
	awaitEndpoints(t, a, "192.0.2.1", "192.0.2.2")
	b.stop()
	awaitEndpoints(t, a, "192.0.2.1")
}

func TestEndpointsWithdrawn(t *testing.T) {
	dir := t.TempDir()
	c := start(t, dir, func(_ *store.Options, o *Options) { o.AdvertiseIP = net.ParseIP("192.0.2.1") })
	awaitEndpoints(t, c, "192.0.2.1")
	c.store.Close() // as if killed: it cannot take its endpoint out
	c.stop()
	awaitEndpoints(t, run(t, dir))
}

func awaitEndpoints(t *testing.T, c *cluster, want ...string) {
	t.Helper()
	client := c.admin(t)
	eventually(t, "endpoints "+strings.Join(want, ","), func(ctx context.Context) error {
		slices, err := client.DiscoveryV1().EndpointSlices("default").List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=kubernetes"})
		if err != nil {
			return err
		}
		var got []string
		for _, s := range slices.Items {
			for _, e := range s.Endpoints {
				got = append(got, e.Addresses...)
			}
		}
		sort.Strings(got)
		if d := cmp.Diff(want, got); d != "" {
			return errors.New(d)
		}
		return nil
	})
}

func startEtcd(t *testing.T) string {
	t.Helper()
	c := embed.NewConfig()
	c.Dir = t.TempDir()
	c.LogLevel = "fatal"
	c.ListenClientUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	c.ListenPeerUrls = nil
	e, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	<-e.Server.ReadyNotify()
	return "http://" + e.Clients[0].Addr().String()
}

func TestAudit(t *testing.T) {
	log := filepath.Join(t.TempDir(), "audit.log")
	c := run(t, t.TempDir(), func(_ *store.Options, o *Options) { o.AuditLogPath = log })
	if _, err := c.admin(t).CoreV1().ConfigMaps("default").Create(t.Context(), configMap("audited", nil), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "audit event", func(context.Context) error {
		b, err := os.ReadFile(log)
		if err != nil {
			return err
		}
		if !strings.Contains(string(b), `"requestURI":"/api/v1/namespaces/default/configmaps"`) || !strings.Contains(string(b), `"username":"admin"`) {
			return fmt.Errorf("no event for the write in %d bytes", len(b))
		}
		if strings.Contains(string(b), `"verb":"list"`) {
			return errors.New("a read was recorded")
		}
		return nil
	})
}

// Pods that our controllers write are checked like anybody's, and others see them.
func TestWriter(t *testing.T) {
	c := shared(t)
	ns := c.namespace(t, nil)
	p := pod("direct", "")
	p.Namespace = ns
	if _, err := c.server.Writer().CreatePod(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	got, err := c.admin(t).CoreV1().Pods(ns).Get(t.Context(), "direct", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got.Spec.ServiceAccountName != "default" || len(got.ManagedFields) != 0 {
		t.Errorf("service account %q, managedFields %v", got.Spec.ServiceAccountName, got.ManagedFields)
	}
	p.Name, p.Namespace = "lost", "no-such-namespace"
	if _, err := c.server.Writer().CreatePod(t.Context(), p); !apierrors.IsNotFound(err) {
		t.Errorf("a pod in a namespace that is not there: %v", err)
	}
}

func TestOptions(t *testing.T) {
	c := shared(t)
	valid := c.server.options
	for name, tc := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"as they are":        {func(*Options) {}, ""},
		"no port":            {func(o *Options) { o.Listen = "127.0.0.1" }, "not host:port"},
		"host name":          {func(o *Options) { o.Listen = "localhost:6443" }, "must name an IP address"},
		"advertise loopback": {func(o *Options) { o.AdvertiseIP = net.ParseIP("127.0.0.1") }, "cannot be advertised"},
		"no service range":   {func(o *Options) { o.ServiceCIDR = nil }, "service range is missing"},
		"IPv6 range":         {func(o *Options) { o.ClusterCIDR = network("fd00::/112") }, "not IPv4"},
		"overlap":            {func(o *Options) { o.ClusterCIDR = network("10.43.0.0/16") }, "overlap"},
		"tiny range":         {func(o *Options) { o.ServiceCIDR = network("10.43.0.0/30") }, "between a /12 and a /28"},
		"policy, no log":     {func(o *Options) { o.AuditPolicyFile = "p" }, "no effect"},
		"no store":           {func(o *Options) { o.Store = nil }, "store"},
	} {
		t.Run(name, func(t *testing.T) {
			o := valid
			tc.change(&o)
			err := o.Validate()
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestClientConfigIsACopy(t *testing.T) {
	c := shared(t)
	a := c.server.ClientConfig()
	a.BearerToken = ""
	if c.server.ClientConfig().BearerToken == "" {
		t.Error("a caller can change the server's own configuration")
	}
	if a.QPS >= 0 || a.ContentType != "application/vnd.kubernetes.protobuf" {
		t.Errorf("QPS %v, content type %s", a.QPS, a.ContentType)
	}
}

// The informers of nodes and pods watch at the registries, and show what the API would, without managedFields.
func TestInformersWatchRegistries(t *testing.T) {
	c := shared(t)
	ctx := t.Context()
	node, err := c.admin(t).CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "informed"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	f := c.server.Informers()
	nodes := f.Core().V1().Nodes()
	nodes.Informer()
	f.StartWithContext(ctx)
	seen := func(ctx context.Context) error {
		got, err := nodes.Lister().Get("informed")
		if err != nil {
			return err
		}
		want := node.DeepCopy()
		want.ManagedFields = nil
		if d := cmp.Diff(want, got); d != "" {
			return fmt.Errorf("(-want +got):\n%s", d)
		}
		return nil
	}
	eventually(t, "the node in the informer", seen)
	node.Labels = map[string]string{"a": "b"}
	if node, err = c.admin(t).CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the changed node", seen)
	if err := c.admin(t).CoreV1().Nodes().Delete(ctx, "informed", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the node's end", func(context.Context) error {
		if _, err := nodes.Lister().Get("informed"); !apierrors.IsNotFound(err) {
			return fmt.Errorf("want not found, not: %w", err)
		}
		return nil
	})
}
