package apiserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/component-base/metrics/legacyregistry"
	"k8s.io/klog/v2"

	"golang.org/x/sys/unix"

	"github.com/everynode/everynode/internal/apiserver/pki"
	"github.com/everynode/everynode/internal/store"
)

var update = flag.Bool("update", false, "write the golden files")

// TestMain makes client-go check that nobody changes an object of a cache. It reads the wish at init, so the tests run
// in a second life of the process.
func TestMain(m *testing.M) {
	const detector = "KUBE_CACHE_MUTATION_DETECTOR"
	if os.Getenv(detector) != "true" {
		_ = os.Setenv(detector, "true")
		panic(unix.Exec("/proc/self/exe", os.Args, os.Environ()))
	}
	klog.InitFlags(nil)
	_ = flag.Set("logtostderr", "false")
	_ = flag.Set("stderrthreshold", "FATAL")
	klog.SetOutput(discard{})
	code := m.Run()
	if everyone.c != nil {
		everyone.c.stop()
		_ = os.RemoveAll(everyone.c.dir)
	}
	os.Exit(code)
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// cluster is a running server.
type cluster struct {
	dir     string
	store   *store.Backend
	pki     *pki.Bundle
	server  *Server
	begun   time.Time
	ctx     context.Context
	cancel  context.CancelFunc
	done    chan error
	stopped sync.Once
	elapsed time.Duration // from nothing to ready
}

type setting func(*store.Options, *Options)

// prepare builds a server over dir that does not serve yet.
func prepare(t testing.TB, dir string, settings ...setting) *cluster {
	t.Helper()
	c := &cluster{dir: dir, begun: time.Now(), done: make(chan error, 1)}
	so := store.Options{DataDir: dir}
	o := Options{DataDir: dir, Listen: "127.0.0.1:0", ServiceCIDR: network("10.43.0.0/16"), ClusterCIDR: network("10.42.0.0/16")}
	for _, s := range settings {
		s(&so, &o)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.ctx, c.cancel = ctx, cancel
	var err error
	if c.store, err = store.Open(ctx, so); err != nil {
		t.Fatal(err)
	}
	if c.pki, err = pki.Ensure(ctx, filepath.Join(dir, "pki"), nil); err != nil {
		t.Fatal(err)
	}
	o.Store, o.PKI = c.store, c.pki
	if c.server, err = New(ctx, o); err != nil {
		c.store.Close()
		t.Fatal(err)
	}
	return c
}

// start runs a server over dir and waits until it is ready.
func start(t testing.TB, dir string, settings ...setting) *cluster {
	t.Helper()
	c := prepare(t, dir, settings...)
	go func() { c.done <- c.server.Run(c.ctx) }()
	select {
	case <-c.server.Ready():
		c.elapsed = time.Since(c.begun)
	case err := <-c.done:
		t.Fatalf("server ended: %v", err)
	case <-time.After(60 * time.Second):
		t.Fatalf("not ready after a minute: %s", c.readyz())
	}
	return c
}

// run starts a server over dir for the length of the test.
func run(t testing.TB, dir string, settings ...setting) *cluster {
	t.Helper()
	c := start(t, dir, settings...)
	t.Cleanup(c.stop)
	return c
}

func (c *cluster) stop() {
	c.stopped.Do(func() {
		c.cancel()
		<-c.done
		c.store.Close()
	})
}

func (c *cluster) readyz() string {
	client, err := kubernetes.NewForConfig(c.server.ClientConfig())
	if err != nil {
		return err.Error()
	}
	b, _ := client.RESTClient().Get().AbsPath("/readyz").Param("verbose", "").DoRaw(context.Background())
	return string(b)
}

// everyone is one server for all tests that do not mind each other: each uses its own namespace.
var everyone struct {
	once sync.Once
	c    *cluster
}

func shared(t testing.TB) *cluster {
	t.Helper()
	everyone.once.Do(func() {
		dir, err := os.MkdirTemp("", "everynode-apiserver-")
		if err != nil {
			t.Fatal(err)
		}
		everyone.c = start(t, dir)
	})
	if everyone.c == nil {
		t.Fatal("the everyone server did not start")
	}
	return everyone.c
}

func network(s string) *net.IPNet {
	_, n, err := net.ParseCIDR(s)
	if err != nil {
		panic(err)
	}
	return n
}

// admin is a client that may do everything, over TLS like any other.
func (c *cluster) admin(t testing.TB) *kubernetes.Clientset {
	t.Helper()
	return clientFor(t, c.as(t, "admin", "system:masters"))
}

// as is the configuration of somebody with a client certificate.
func (c *cluster) as(t testing.TB, name string, groups ...string) *rest.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := c.pki.WriteKubeconfig(path, "https://"+c.server.Address().String(), name, groups...); err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	return config
}

// bearer is the configuration of somebody with a token; "" is anonymous.
func (c *cluster) bearer(t testing.TB, token string) *rest.Config {
	t.Helper()
	return &rest.Config{
		Host: "https://" + c.server.Address().String(), BearerToken: token, QPS: -1,
		TLSClientConfig: rest.TLSClientConfig{CAData: c.pki.CACert()},
	}
}

func clientFor(t testing.TB, config *rest.Config) *kubernetes.Clientset {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// namespace makes a namespace for the test, with the default service account that a controller would make.
func (c *cluster) namespace(t testing.TB, labels map[string]string) string {
	t.Helper()
	name := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
	ns := namespace(name)
	ns.Labels = labels
	ctx, client := t.Context(), c.admin(t)
	if _, err := client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().ServiceAccounts(name).Create(ctx, serviceAccount("default"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return name
}

// eventually awaits a condition that other goroutines bring about.
func eventually(t testing.TB, what string, f func(context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		last = f(ctx)
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("%s: %v", what, last)
	}
}

// counter sums a metric over all label sets that contain labels.
func counter(t testing.TB, name string, labels map[string]string) float64 {
	t.Helper()
	families, err := legacyregistry.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var sum float64
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.Metric {
			match := 0
			for _, l := range m.Label {
				if v, ok := labels[l.GetName()]; ok && v == l.GetValue() {
					match++
				}
			}
			if match == len(labels) {
				sum += m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

// handshake returns the chain that a server shows.
func handshake(t testing.TB, address string) []*x509.Certificate {
	t.Helper()
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true}) // looked at, not trusted
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	return conn.ConnectionState().PeerCertificates
}

func parseCertificate(t testing.TB, data []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(data)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
