package server

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/everynode/everynode/internal/cli/layout"
	"github.com/everynode/everynode/internal/jointoken"
)

func options(t *testing.T, dir string) Options {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return Options{
		DataDir: dir, Listen: listener.Addr().String(),
		ClusterCIDR: DefaultClusterCIDR, ServiceCIDR: DefaultServiceCIDR,
		NodeCIDRMaskSize: DefaultNodeCIDRMaskSize, NodeMonitorGracePeriod: DefaultNodeMonitorGracePeriod,
	}
}

// start runs a server until the returned stop is called, which checks that it ends in time.
func start(t *testing.T, o Options) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, o) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("server ended with: %v", err)
			}
		case <-time.After(6 * time.Second):
			t.Error("the server did not stop within 5 s")
		}
	}
	t.Cleanup(stop)
	return stop
}

func await(t *testing.T, what string, timeout time.Duration, condition func() error) {
	t.Helper()
	deadline := time.Now().Add(timeout)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func client(t *testing.T, kubeconfig string) kubernetes.Interface {
	t.Helper()
	var c kubernetes.Interface
	await(t, "admin kubeconfig", 30*time.Second, func() error {
		config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
		if err != nil {
			return err
		}
		if c, err = kubernetes.NewForConfig(config); err != nil {
			return err
		}
		return c.Discovery().RESTClient().Get().AbsPath("/readyz").Do(context.Background()).Error()
	})
	return c
}

// The whole control plane in one process: it starts, its controllers work, it hands out ways in,
// refuses a second server on its data, stops in time, and has everything when it comes back.
func TestServer(t *testing.T) {
	ctx := context.Background()
	o := options(t, t.TempDir())
	l := layout.Layout{DataDir: o.DataDir}
	stop := start(t, o)
	c := client(t, l.AdminKubeconfig())

	for _, path := range []string{l.AdminKubeconfig(), l.JoinToken()} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", path, info.Mode())
		}
	}
	line, err := os.ReadFile(l.JoinToken())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := jointoken.Parse(string(line)); err != nil {
		t.Errorf("join token: %v", err)
	}
	await(t, "the controllers' work: a default service account", 20*time.Second, func() error {
		_, err := c.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	if err := Run(ctx, o); err == nil || !strings.Contains(err.Error(), "another everynode server uses it") {
		t.Errorf("a second server on the same data: %v", err)
	}
	_, err = c.CoreV1().ConfigMaps("default").Patch(ctx, "kept", "application/apply-patch+yaml",
		[]byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"kept"},"data":{"k":"v"}}`), metav1.PatchOptions{FieldManager: "test"})
	if err != nil {
		t.Fatal(err)
	}
	stop()

	start(t, o)
	c = client(t, l.AdminKubeconfig())
	kept, err := c.CoreV1().ConfigMaps("default").Get(ctx, "kept", metav1.GetOptions{})
	if err != nil || kept.Data["k"] != "v" {
		t.Errorf("after a restart: %v, %v", kept, err)
	}
	await(t, "leading again: a service account in a new namespace", 20*time.Second, func() error {
		if _, err := c.CoreV1().Namespaces().Patch(ctx, "later", "application/apply-patch+yaml",
			[]byte(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"later"}}`), metav1.PatchOptions{FieldManager: "test"}); err != nil {
			return err
		}
		_, err := c.CoreV1().ServiceAccounts("later").Get(ctx, "default", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return fmt.Errorf("not there yet: %w", err)
		}
		return err
	})
}

func TestOptionsValidate(t *testing.T) {
	good := Options{
		DataDir: "/d", Listen: DefaultListen, ClusterCIDR: DefaultClusterCIDR, ServiceCIDR: DefaultServiceCIDR,
		NodeCIDRMaskSize: 24, NodeMonitorGracePeriod: DefaultNodeMonitorGracePeriod,
	}
	for name, c := range map[string]struct {
		change func(*Options)
		want   string // part of the error; none if empty
	}{
		"defaults":         {func(*Options) {}, ""},
		"all addresses":    {func(o *Options) { o.Listen = ":6443"; o.AdvertiseAddress = "10.0.0.1" }, ""},
		"relative data":    {func(o *Options) { o.DataDir = "d" }, "--data-dir"},
		"no port":          {func(o *Options) { o.Listen = "127.0.0.1" }, "--listen"},
		"host name":        {func(o *Options) { o.Listen = "localhost:6443" }, "--listen"},
		"port too high":    {func(o *Options) { o.Listen = "127.0.0.1:65536" }, "--listen"},
		"range off by bit": {func(o *Options) { o.ClusterCIDR = "10.42.0.1/16" }, "--cluster-cidr"},
		"IPv6 services":    {func(o *Options) { o.ServiceCIDR = "fd00::/108" }, "--service-cidr"},
		"mask too short":   {func(o *Options) { o.NodeCIDRMaskSize = 8 }, "--node-cidr-mask-size"},
		"no grace":         {func(o *Options) { o.NodeMonitorGracePeriod = 0 }, "--node-monitor-grace-period"},
		"advertise lo":     {func(o *Options) { o.AdvertiseAddress = "127.0.0.1" }, "--advertise-address"},
	} {
		t.Run(name, func(t *testing.T) {
			o := good
			c.change(&o)
			err := o.Validate()
			if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error about %q", err, c.want)
			}
		})
	}
}

func TestURLAndAdvertise(t *testing.T) {
	for listen, want := range map[string]struct{ url, advertise string }{
		"127.0.0.1:6443":    {"https://127.0.0.1:6443", "<nil>"},
		"192.0.2.1:7443":    {"https://192.0.2.1:7443", "192.0.2.1"},
		"[2001:db8::1]:443": {"https://[2001:db8::1]:443", "2001:db8::1"},
	} {
		o := Options{
			DataDir: "/d", Listen: listen, ClusterCIDR: DefaultClusterCIDR, ServiceCIDR: DefaultServiceCIDR,
			NodeCIDRMaskSize: 24, NodeMonitorGracePeriod: time.Minute,
		}
		s, err := o.settle()
		if err != nil {
			t.Fatal(err)
		}
		if s.url() != want.url || s.advertise.String() != want.advertise {
			t.Errorf("%s: got %s, %s; want %s, %s", listen, s.url(), s.advertise, want.url, want.advertise)
		}
	}
}
