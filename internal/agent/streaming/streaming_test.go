package streaming

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
	utilexec "k8s.io/utils/exec"
)

// criRuntime is a runtime with one container, "id-c", and a streaming server.
type criRuntime struct {
	internalapi.RuntimeService
	streams string

	mu     sync.Mutex
	asked  []string
	exited bool
}

func (c *criRuntime) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, fmt.Sprintf(format, args...))
}

func (c *criRuntime) Exec(_ context.Context, r *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	c.note("exec %s %q in=%v out=%v err=%v tty=%v", r.ContainerId, r.Cmd, r.Stdin, r.Stdout, r.Stderr, r.Tty)
	return &runtimeapi.ExecResponse{Url: c.streams + "/exec/token"}, nil
}

func (c *criRuntime) Attach(_ context.Context, r *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	c.note("attach %s in=%v out=%v err=%v tty=%v", r.ContainerId, r.Stdin, r.Stdout, r.Stderr, r.Tty)
	return &runtimeapi.AttachResponse{Url: c.streams + "/attach/token"}, nil
}

func (c *criRuntime) PortForward(_ context.Context, r *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	c.note("portForward %s %v", r.PodSandboxId, r.Port)
	return &runtimeapi.PortForwardResponse{Url: c.streams + "/portforward/token"}, nil
}

func (c *criRuntime) ExecSync(_ context.Context, id string, cmd []string, _ time.Duration) ([]byte, []byte, error) {
	if cmd[0] == "false" {
		return nil, []byte("no"), utilexec.CodeExitError{Err: errors.New("exit 1"), Code: 1}
	}
	return []byte(id), []byte(strings.Join(cmd, "+")), nil
}

func (c *criRuntime) ContainerStatus(context.Context, string, bool) (*runtimeapi.ContainerStatusResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	state := runtimeapi.ContainerState_CONTAINER_RUNNING
	if c.exited {
		state = runtimeapi.ContainerState_CONTAINER_EXITED
	}
	return &runtimeapi.ContainerStatusResponse{Status: &runtimeapi.ContainerStatus{State: state}}, nil
}

// echoStreams is a runtime's streaming server: what comes in goes out.
func echoStreams(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := httpstream.Handshake(r, w, []string{"v4.channel.k8s.io"}); err != nil {
			return
		}
		arrived := make(chan httpstream.Stream, 4)
		conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, _ <-chan struct{}) error {
			arrived <- s
			return nil
		})
		if conn == nil {
			return
		}
		defer conn.Close()
		streams := map[string]httpstream.Stream{}
		for range 3 {
			s := <-arrived
			streams[s.Headers().Get(corev1.StreamType)] = s
		}
		fmt.Fprintf(streams["stdout"], "%s:", r.URL.Path)
		_, _ = io.Copy(streams["stdout"], streams["stdin"])
		_ = streams["stdout"].Close()
		status, _ := json.Marshal(metav1.Status{Status: metav1.StatusSuccess})
		_, _ = streams["error"].Write(status)
		_ = streams["error"].Close()
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// onePod is the pods of a node with one: ns/p, containers c and silent.
type onePod struct{ log string }

func (o onePod) Pods() []*corev1.Pod {
	return []*corev1.Pod{{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u1"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}, {Name: "silent"}}},
		Status:     corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}, {Name: "silent"}}},
	}}
}

func (o onePod) Container(_, _ string, _ types.UID, container string) (string, error) {
	return "id-" + container, nil
}

func (o onePod) LogFile(_, pod string, _ types.UID, container string, previous bool) (string, string, error) {
	if container == "silent" {
		return "", "", fmt.Errorf("container %q in pod %q is waiting to start: ContainerCreating", container, pod)
	}
	if previous {
		return "", "", fmt.Errorf("previous terminated container %q in pod %q not found", container, pod)
	}
	return o.log, "id-" + container, nil
}

func (o onePod) Sandbox(string, string, types.UID) (string, error) { return "sandbox-1", nil }

// authority is a CA of a cluster.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	a.cert, a.key = a.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

func (a *authority) issue(t *testing.T, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	parent, parentKey := a.cert, a.key
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func (a *authority) pair(t *testing.T, name string, ips ...net.IP) *tls.Certificate {
	t.Helper()
	cert, key := a.issue(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IPAddresses: ips, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	})
	return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// reviewer is an API server that knows who may do what: "admin" all, "viewer" see metrics, others
// nothing; the token "good" is admin's.
func reviewer(t *testing.T) kubernetes.Interface {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /apis/authorization.k8s.io/v1/subjectaccessreviews", func(w http.ResponseWriter, r *http.Request) {
		var review authorizationv1.SubjectAccessReview
		_ = json.NewDecoder(r.Body).Decode(&review)
		what := review.Spec.ResourceAttributes
		ours := what.Resource == "nodes" && what.Name == "n1"
		review.Status.Allowed = ours && (review.Spec.User == "admin" || review.Spec.User == "viewer" && what.Subresource == "metrics" && what.Verb == "get")
		reply(w, review)
	})
	mux.HandleFunc("POST /apis/authentication.k8s.io/v1/tokenreviews", func(w http.ResponseWriter, r *http.Request) {
		var review authenticationv1.TokenReview
		_ = json.NewDecoder(r.Body).Decode(&review)
		review.Status = authenticationv1.TokenReviewStatus{Authenticated: review.Spec.Token == "good", User: authenticationv1.UserInfo{Username: "admin"}}
		reply(w, review)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	client, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func reply(w http.ResponseWriter, with any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(with)
}

// fixture is a node's API that runs.
type fixture struct {
	t       *testing.T
	url     string
	ca      *authority
	runtime *criRuntime
	log     string
	sick    atomic.Bool
}

// start serves, with the rights of reviewer.
func start(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, ca: newAuthority(t), runtime: &criRuntime{streams: echoStreams(t)}, log: filepath.Join(t.TempDir(), "0.log")}
	f.write("")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	own := f.ca.pair(t, "system:node:n1", net.IPv4(127, 0, 0, 1))
	s, err := New(Options{
		Address: address, NodeName: "n1", ClientCA: f.ca.pem(), Client: reviewer(t), Pods: onePod{f.log}, Runtime: f.runtime,
		Stats: f, Config: &kubeletconfig.KubeletConfiguration{MaxPods: 110}, Healthy: f.healthy, LogDir: filepath.Dir(f.log),
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(5 * time.Second):
			t.Error("Run goes on after its context ended")
		}
	})
	f.url = "https://" + address
	for range 500 {
		if conn, err := net.Dial("tcp", address); err == nil {
			_ = conn.Close()
			return f
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("nothing listens")
	return nil
}

func (f *fixture) write(lines ...string) {
	f.t.Helper()
	file, err := os.OpenFile(f.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		f.t.Fatal(err)
	}
	defer file.Close()
	for _, line := range lines {
		if line != "" {
			fmt.Fprintln(file, line)
		}
	}
}

func (f *fixture) tls(certs ...*tls.Certificate) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(f.ca.cert)
	config := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	for _, c := range certs {
		config.Certificates = append(config.Certificates, *c)
	}
	return config
}

// get asks as the holder of cert, or with a token.
func (f *fixture) get(method, path string, cert *tls.Certificate, token string) (int, string) {
	f.t.Helper()
	transport := &http.Transport{TLSClientConfig: f.tls(), ForceAttemptHTTP2: true}
	if cert != nil {
		transport.TLSClientConfig = f.tls(cert)
	}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(f.t.Context(), method, f.url+path, http.NoBody)
	if err != nil {
		f.t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := (&http.Client{Transport: transport, Timeout: 20 * time.Second}).Do(request)
	if err != nil {
		f.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return response.StatusCode, strings.TrimSpace(string(body))
}

func TestAccess(t *testing.T) {
	f := start(t)
	stranger := newAuthority(t).pair(t, "admin")
	tests := []struct {
		name, path string
		cert       *tls.Certificate
		token      string
		want       int
	}{
		{name: "nobody", path: "/pods", want: 401},
		{name: "a certificate of another CA", path: "/pods", cert: stranger, want: 401},
		{name: "a wrong token", path: "/pods", token: "bad", want: 401},
		{name: "a good token", path: "/pods", token: "good", want: 200},
		{name: "a certificate", path: "/pods", cert: f.ca.pair(t, "admin"), want: 200},
		{name: "without rights", path: "/pods", cert: f.ca.pair(t, "other"), want: 403},
		{name: "rights for metrics", path: "/metrics", cert: f.ca.pair(t, "viewer"), want: 200},
		{name: "of all kinds", path: "/metrics/resource", cert: f.ca.pair(t, "viewer"), want: 200},
		{name: "but not for statistics", path: "/stats/summary", cert: f.ca.pair(t, "viewer"), want: 403},
		{name: "metrics without rights", path: "/metrics/cadvisor", cert: f.ca.pair(t, "other"), want: 403},
		{name: "metrics for nobody", path: "/metrics", want: 401},
		{name: "and nothing else", path: "/healthz", cert: f.ca.pair(t, "viewer"), want: 403},
		{name: "health", path: "/healthz", cert: f.ca.pair(t, "admin"), want: 200},
		{name: "an unknown path", path: "/nothing", cert: f.ca.pair(t, "admin"), want: 404},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if status, body := f.get(http.MethodGet, tt.path, tt.cert, tt.token); status != tt.want {
				t.Errorf("status %d (%.200s), want %d", status, body, tt.want)
			}
		})
	}
}

func TestSubresources(t *testing.T) {
	for path, want := range map[string]string{
		"/containerLogs/ns/p/c": "proxy", "/exec/ns/p/c": "proxy", "/run/ns/p/c": "proxy", "/": "proxy",
		"/pods": "pods proxy", "/pods/": "pods proxy", "/podsecrets": "proxy", "/runningpods/": "pods proxy",
		"/healthz": "healthz proxy", "/healthz/ping": "healthz proxy", "/configz": "configz proxy",
		"/stats/summary": "stats", "/metrics": "metrics", "/metrics/resource": "metrics", "/logs/x": "log",
	} {
		if got := strings.Join(subresources(path), " "); got != want {
			t.Errorf("%s asks for %q, want %q", path, got, want)
		}
	}
}

// The end of a log that was begun anew a moment ago is in the part before.
func TestTailAfterARotation(t *testing.T) {
	f := start(t)
	admin := f.ca.pair(t, "admin")
	f.write("2024-01-01T00:00:00Z stdout F one", "2024-01-01T00:00:00Z stdout F two", "2024-01-01T00:00:00Z stderr F three")
	rotated := f.log + ".20240101-000000"
	if err := os.Rename(f.log, rotated); err != nil {
		t.Fatal(err)
	}
	for _, old := range []string{f.log + ".20231231-000000.gz", f.log + ".notes"} {
		if err := os.WriteFile(old, []byte("old\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(query, want string) {
		t.Helper()
		if code, body := f.get(http.MethodGet, "/containerLogs/ns/p/c?"+query, admin, ""); code != 200 || body != strings.TrimSpace(want) {
			t.Errorf("%s: %d %q, want %q", query, code, body, want)
		}
	}
	f.write("")
	expect("tailLines=2", "two\nthree\n")
	f.write("2024-01-02T00:00:00Z stdout F four")
	for query, want := range map[string]string{
		"tailLines=1":               "four\n",
		"tailLines=2":               "three\nfour\n",
		"tailLines=9":               "one\ntwo\nthree\nfour\n",
		"tailLines=0":               "",
		"":                          "four\n", // as the kubelet has it
		"tailLines=3&limitBytes=6":  "two\nth",
		"tailLines=3&limitBytes=12": "two\nthree\nfo",
		"tailLines=9&stream=Stdout": "one\ntwo\nfour\n",
		"tailLines=9&sinceTime=2024-01-01T12:00:00Z": "four\n",
	} {
		expect(query, want)
	}
	if err := os.Rename(rotated, rotated+".gz"); err != nil {
		t.Fatal(err)
	}
	expect("tailLines=2", "four\n")
}

func TestLogs(t *testing.T) {
	f := start(t)
	admin := f.ca.pair(t, "admin")
	f.write(
		"2024-01-01T00:00:00.000000000Z stdout F one",
		"2024-01-02T00:00:00.000000000Z stderr F two",
		"2024-01-03T00:00:00.000000000Z stdout P thr",
		"2024-01-03T00:00:00.000000001Z stdout F ee",
	)
	tests := []struct {
		query string
		code  int
		want  string
	}{
		{"", 200, "one\ntwo\nthree"},
		{"tailLines=1", 200, "ee"},
		{"tail=2", 200, "three"},
		{"tail=all", 200, "one\ntwo\nthree"},
		{"tailLines=0", 200, ""},
		{"limitBytes=5", 200, "one\nt"},
		{"timestamps=true&tailLines=4&limitBytes=34", 200, "2024-01-01T00:00:00.000000000Z one"},
		{"sinceTime=2024-01-02T12:00:00Z", 200, "three"},
		{"sinceSeconds=60", 200, ""},
		{"stream=Stderr", 200, "two"},
		{"previous=true", 400, `previous terminated container "c" in pod "p" not found`},
		{"tailLines=-1", 422, "invalid tailLines -1"},
		{"limitBytes=0", 422, "invalid limitBytes 0"},
		{"tailLines=x", 400, "unable to decode tailLines"},
		{"sinceTime=yesterday", 400, "unable to decode sinceTime"},
		{"follow=false&previous=0", 200, "one\ntwo\nthree"},
		{"sinceSeconds=1&sinceTime=2024-01-02T12:00:00Z", 422, "at most one"},
		{"stream=Both", 422, "want All, Stdout or Stderr"},
	}
	for _, tt := range tests {
		t.Run(tt.query, func(t *testing.T) {
			code, body := f.get(http.MethodGet, "/containerLogs/ns/p/c?"+tt.query, admin, "")
			if code != tt.code || code == 200 && body != tt.want || !strings.Contains(body, tt.want) {
				t.Errorf("%d %q, want %d %q", code, body, tt.code, tt.want)
			}
		})
	}
	for path, want := range map[string]string{
		"/containerLogs/ns/p/none":   `container "none" not found in pod "p"`,
		"/containerLogs/ns/other/c":  `pod "other" does not exist`,
		"/containerLogs/else/p/c":    `pod "p" does not exist`,
		"/containerLogs/ns/p/silent": "waiting to start: ContainerCreating",
	} {
		if code, body := f.get(http.MethodGet, path, admin, ""); code < 400 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %q, want %q", path, code, body, want)
		}
	}
}

func TestLogsFollow(t *testing.T) {
	f := start(t)
	transport := &http.Transport{TLSClientConfig: f.tls(f.ca.pair(t, "admin"))}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Get(f.url + "/containerLogs/ns/p/c?follow=true")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	f.write("2024-01-01T00:00:00.000000000Z stdout F one")
	line := make([]byte, 4)
	if _, err := io.ReadFull(response.Body, line); err != nil || string(line) != "one\n" {
		t.Fatalf("read %q, %v", line, err)
	}
	f.runtime.mu.Lock()
	f.runtime.exited = true
	f.runtime.mu.Unlock()
	f.write("2024-01-01T00:00:01.000000000Z stdout F end")
	rest, err := io.ReadAll(response.Body)
	if err != nil || string(rest) != "end\n" {
		t.Errorf("after the container ended: %q, %v", rest, err)
	}
}

func TestExecAndAttach(t *testing.T) {
	f := start(t)
	for _, tt := range []struct{ path, want, asked string }{
		{"/exec/ns/p/c?command=sh&command=-c&input=1&output=1", "/exec/token:hello", `exec id-c ["sh" "-c"] in=true out=true err=false tty=false`},
		{"/exec/ns/p/u1/c?command=sh&input=1&output=1&error=1&tty=1", "/exec/token:hello", `exec id-c ["sh"] in=true out=true err=false tty=true`},
		{"/attach/ns/p/c?input=1&output=1", "/attach/token:hello", `attach id-c in=true out=true err=false tty=false`},
	} {
		t.Run(tt.path, func(t *testing.T) {
			target, err := url.Parse(f.url + tt.path)
			if err != nil {
				t.Fatal(err)
			}
			pair := f.ca.pair(t, "admin")
			key, err := x509.MarshalECPrivateKey(pair.PrivateKey.(*ecdsa.PrivateKey))
			if err != nil {
				t.Fatal(err)
			}
			executor, err := remotecommand.NewSPDYExecutor(&rest.Config{Host: f.url, TLSClientConfig: rest.TLSClientConfig{
				CAData:   f.ca.pem(),
				CertData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}),
				KeyData:  pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: key}),
			}}, http.MethodPost, target)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			var out bytes.Buffer
			if err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: strings.NewReader("hello"), Stdout: &out}); err != nil {
				t.Fatal(err)
			}
			if out.String() != tt.want {
				t.Errorf("output %q, want %q", out.String(), tt.want)
			}
			f.runtime.mu.Lock()
			defer f.runtime.mu.Unlock()
			if asked := f.runtime.asked[len(f.runtime.asked)-1]; asked != tt.asked {
				t.Errorf("asked the runtime for %q, want %q", asked, tt.asked)
			}
		})
	}
}

func TestStreamsRefused(t *testing.T) {
	f := start(t)
	admin := f.ca.pair(t, "admin")
	for path, want := range map[string]int{
		"/exec/ns/p/c?command=sh":          400, // no stream
		"/exec/ns/p/c?command=sh&output=1": 400, // no upgrade
		"/exec/ns/p/other/c?output=1":      404, // another uid
		"/exec/ns/p/none?output=1":         404,
		"/portForward/ns/none":             404,
		"/portForward/ns/p?port=x":         400,
	} {
		if code, body := f.get(http.MethodPost, path, admin, ""); code != want {
			t.Errorf("%s: %d %q, want %d", path, code, body, want)
		}
	}
	if code, _ := f.get(http.MethodPost, "/portForward/ns/p?port=80,8080", admin, ""); code != 400 {
		t.Errorf("port-forward without an upgrade: %d", code)
	}
	f.runtime.mu.Lock()
	defer f.runtime.mu.Unlock()
	if !slices.Contains(f.runtime.asked, "portForward sandbox-1 [80 8080]") {
		t.Errorf("asked the runtime for %q", f.runtime.asked)
	}
}

func TestRunAndPods(t *testing.T) {
	f := start(t)
	admin := f.ca.pair(t, "admin")
	if code, body := f.get(http.MethodPost, "/run/ns/p/c?cmd=ls+-l", admin, ""); code != 200 || body != "id-cls+-l" {
		t.Errorf("run: %d %q", code, body)
	}
	if code, body := f.get(http.MethodPost, "/run/ns/p/c?cmd=false", admin, ""); code != 200 || body != "no" {
		t.Errorf("run of a command that fails: %d %q", code, body)
	}
	_, body := f.get(http.MethodGet, "/pods", admin, "")
	var list corev1.PodList
	if err := json.Unmarshal([]byte(body), &list); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("PodList v1 p", fmt.Sprintf("%s %s %s", list.Kind, list.APIVersion, list.Items[0].Name)); diff != "" {
		t.Error(diff)
	}
}

func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, err := New(Options{
		Address: l.Addr().String(), NodeName: "n1", ClientCA: newAuthority(t).pem(), Client: reviewer(t), Pods: onePod{}, Runtime: &criRuntime{}, Stats: &fixture{},
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("none") },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "--listen-port") {
		t.Errorf("error %v, want one that says what to do", err)
	}
}
