package integration

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned"
	"k8s.io/utils/ptr"

	"github.com/everynode/everynode/internal/apiserver/pki"
)

// statsAgent is the part of an agent that says what is used.
type statsAgent struct {
	pods  []*corev1.Pod
	asked atomic.Int32
	hang  bool // it takes requests and never answers
	bare  atomic.Int32
}

func (a *statsAgent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if len(r.TLS.PeerCertificates) == 0 || r.TLS.PeerCertificates[0].Subject.CommonName != "kube-apiserver-kubelet-client" {
		a.bare.Add(1)
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
		return
	}
	a.asked.Add(1)
	if a.hang {
		<-r.Context().Done()
		return
	}
	if r.URL.Path != "/stats/summary" || r.URL.RawQuery != "only_cpu_and_memory=true" {
		http.NotFound(w, r)
		return
	}
	used := func(n uint64) (*statsapi.CPUStats, *statsapi.MemoryStats) {
		return &statsapi.CPUStats{Time: metav1.Now(), UsageNanoCores: ptr.To(n * 1_000_000)}, &statsapi.MemoryStats{Time: metav1.Now(), WorkingSetBytes: ptr.To(n << 20)}
	}
	s := statsapi.Summary{Node: statsapi.NodeStats{NodeName: "n"}}
	s.Node.CPU, s.Node.Memory = used(500)
	for _, pod := range a.pods {
		p := statsapi.PodStats{PodRef: statsapi.PodReference{Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID)}}
		for i, c := range pod.Spec.Containers {
			of := statsapi.ContainerStats{Name: c.Name}
			of.CPU, of.Memory = used(uint64(10 * (i + 1)))
			p.Containers = append(p.Containers, of)
		}
		s.Pods = append(s.Pods, p)
	}
	_ = json.NewEncoder(w).Encode(s)
}

// serveStats runs an agent with a certificate of the cluster, and returns its port.
func (c *cluster) serveStats(t *testing.T, a http.Handler) int32 {
	t.Helper()
	dir := t.TempDir()
	all, err := filepath.Glob(filepath.Join(c.bundle.Dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range all { // the same authority, whose bundle has room for one serving certificate only
		if data, err := os.ReadFile(from); err == nil && os.WriteFile(filepath.Join(dir, filepath.Base(from)), data, 0o600) != nil {
			t.Fatal("cannot copy the authority")
		}
	}
	bundle, err := pki.Ensure(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := bundle.Serving([]string{"agent"}, []net.IP{net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(a)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	t.Cleanup(server.Close)
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	n, err := strconv.ParseInt(port, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return int32(n)
}

func (c *cluster) statsNode(t *testing.T, name string, a http.Handler) {
	t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"name": name}}}
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}}
	node.Status.DaemonEndpoints.KubeletEndpoint.Port = c.serveStats(t, a)
	if _, err := c.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestResourceMetrics: metrics.k8s.io answers from what agents say, with what it has while one of
// them is silent, and to those only who may look.
func TestResourceMetrics(t *testing.T) {
	c := start(t)
	ctx := t.Context()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}
	if _, err := c.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	talking, hanging := &statsAgent{}, &statsAgent{hang: true}
	for _, name := range []string{"a", "b"} {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Labels: map[string]string{"app": name}},
			Spec: corev1.PodSpec{
				NodeName: "talking", AutomountServiceAccountToken: ptr.To(false),
				Containers: []corev1.Container{{Name: "one", Image: "i"}, {Name: "two", Image: "i"}},
			},
		}
		await(t, "a pod", succeeds(func() error {
			made, err := c.CoreV1().Pods("ns").Create(ctx, pod, metav1.CreateOptions{})
			if err == nil {
				talking.pods = append(talking.pods, made)
			}
			return err
		}))
	}
	c.statsNode(t, "talking", talking)
	c.statsNode(t, "hanging", hanging)
	client, err := metricsclient.NewForConfig(c.config)
	if err != nil {
		t.Fatal(err)
	}

	await(t, "the node that answers, and no other", succeeds(func() error {
		list, err := client.MetricsV1beta1().NodeMetricses().List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		if len(list.Items) != 1 || list.Items[0].Name != "talking" || list.Items[0].Usage.Cpu().String() != "500m" || list.Items[0].Usage.Memory().String() != "500Mi" ||
			list.Items[0].Labels["name"] != "talking" || list.Items[0].Timestamp.IsZero() || list.Items[0].Window.Duration == 0 {
			return fmt.Errorf("%+v", list.Items)
		}
		if hanging.asked.Load() == 0 {
			return errors.New("the other was not asked")
		}
		return nil
	}))
	_, err = client.MetricsV1beta1().NodeMetricses().Get(ctx, "hanging", metav1.GetOptions{})
	if !apierrors.IsNotFound(err) || !strings.Contains(err.Error(), "does not say what is used") {
		t.Errorf("the silent node: %v", err)
	}
	if _, err := client.MetricsV1beta1().NodeMetricses().Get(ctx, "none", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("a node that is not there: %v", err)
	}
	if talking.bare.Load() > 0 {
		t.Error("an agent was asked without a certificate")
	}

	for options, want := range map[metav1.ListOptions]string{
		{}:                                       "a b",
		{LabelSelector: "app=b"}:                 "b",
		{FieldSelector: "metadata.name=a"}:       "a",
		{FieldSelector: "spec.nodeName=talking"}: "a b",
		{FieldSelector: "spec.nodeName=hanging"}: "",
		{LabelSelector: "app!=a,app!=b"}:         "",
	} {
		list, err := client.MetricsV1beta1().PodMetricses("").List(ctx, options)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, p := range list.Items {
			names = append(names, p.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("pods with %+v: %q, want %q", options, got, want)
		}
	}
	pod, err := client.MetricsV1beta1().PodMetricses("ns").Get(ctx, "a", metav1.GetOptions{})
	if err != nil || len(pod.Containers) != 2 || pod.Containers[1].Name != "two" || pod.Containers[1].Usage.Cpu().String() != "20m" {
		t.Errorf("%+v, %v", pod, err)
	}
	if _, err := client.MetricsV1beta1().PodMetricses("").List(ctx, metav1.ListOptions{FieldSelector: "status.phase=Running"}); !apierrors.IsBadRequest(err) {
		t.Errorf("a field that cannot be selected by: %v", err)
	}
	c.metricsTable(t)
	c.metricsAccess(t)
}

func (c *cluster) metricsTable(t *testing.T) {
	t.Helper()
	raw, err := c.CoreV1().RESTClient().Get().AbsPath("/apis/metrics.k8s.io/v1beta1/namespaces/ns/pods").
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").DoRaw(t.Context())
	var table metav1.Table
	if err != nil || json.Unmarshal(raw, &table) != nil || len(table.Rows) != 2 || fmt.Sprint(table.Rows[0].Cells) != "[a 30m 30Mi 10s]" {
		t.Errorf("table %s, %v", raw, err)
	}
}

// metricsAccess: who may view a namespace may see what it uses, by the role that is aggregated.
func (c *cluster) metricsAccess(t *testing.T) {
	t.Helper()
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "viewer"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "viewer"}},
	}
	if _, err := c.RbacV1().RoleBindings("ns").Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	viewer, stranger := c.metricsAs(t, "viewer"), c.metricsAs(t, "stranger")
	await(t, "a viewer sees the namespace", succeeds(func() error {
		_, err := viewer.MetricsV1beta1().PodMetricses("ns").List(t.Context(), metav1.ListOptions{})
		return err
	}))
	if _, err := viewer.MetricsV1beta1().NodeMetricses().List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a viewer of a namespace sees nodes: %v", err)
	}
	if _, err := stranger.MetricsV1beta1().PodMetricses("ns").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a stranger sees pods: %v", err)
	}
}

func (c *cluster) metricsAs(t *testing.T, user string) metricsclient.Interface {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := c.bundle.WriteKubeconfig(path, "https://"+c.server.Address().String(), user); err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	client, err := metricsclient.NewForConfig(rest.CopyConfig(config))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// succeeds is for await.
func succeeds(f func() error) func() (bool, string) {
	return func() (bool, string) {
		err := f()
		return err == nil, fmt.Sprint(err)
	}
}
