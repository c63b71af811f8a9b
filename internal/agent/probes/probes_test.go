package probes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	utilexec "k8s.io/utils/exec"

	"github.com/everynode/everynode/internal/decide/podlife"
)

// watched runs a container's probes on virtual time, each answering by its
// command's name from answers, and notes what is reported, with the time.
type watched struct {
	mu      sync.Mutex
	answers map[string]int // exit code; -1: the runtime does not answer
	reports []string
	tries   map[string]int
	cancel  context.CancelFunc
	began   time.Time
}

func watchOn(c *corev1.Container, resume podlife.Probe) *watched {
	w := &watched{answers: map[string]int{}, tries: map[string]int{}, began: time.Now()}
	p := &Prober{Exec: func(_ context.Context, _ string, cmd []string, _ time.Duration) ([]byte, []byte, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.tries[cmd[0]]++
		switch code := w.answers[cmd[0]]; code {
		case 0:
			return nil, nil, nil
		case -1:
			return nil, nil, errors.New("the runtime is away")
		default:
			return []byte("no"), nil, utilexec.CodeExitError{Err: errors.New("exit"), Code: code}
		}
	}}
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	go p.Watch(ctx, Target{Container: c, ID: "id", Started: time.Now()}, resume, func(s podlife.Probe) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.reports = append(w.reports, fmt.Sprintf("%v started=%v ready=%v unhealthy=%v", time.Since(w.began), s.Started, s.Ready, s.Unhealthy))
	}, func(_, _, _ string) {})
	return w
}

func (w *watched) set(name string, code int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answers[name] = code
}

func (w *watched) want(t *testing.T, reports ...string) {
	t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if diff := cmp.Diff(reports, w.reports); diff != "" {
		t.Errorf("reports (-want +got):\n%s", diff)
	}
	w.reports = nil
}

func exec(name string, edit ...func(*corev1.Probe)) *corev1.Probe {
	p := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{name}}}, PeriodSeconds: 10, SuccessThreshold: 1, FailureThreshold: 3, TimeoutSeconds: 1}
	for _, e := range edit {
		e(p)
	}
	return p
}

func TestReadinessThresholds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watchOn(&corev1.Container{ReadinessProbe: exec("ready")}, podlife.Probe{})
		w.want(t, "0s started=true ready=true unhealthy=false")
		w.set("ready", 1)
		time.Sleep(25 * time.Second)
		w.want(t)
		time.Sleep(10 * time.Second)
		w.want(t, "30s started=true ready=false unhealthy=false")
		w.set("ready", 0)
		time.Sleep(10 * time.Second)
		w.want(t, "40s started=true ready=true unhealthy=false")
		w.cancel()
	})
}

// TestReadyWithinMoments: a server that is up after 300 ms is not kept waiting for
// the next period.
func TestReadyWithinMoments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watchOn(&corev1.Container{ReadinessProbe: exec("ready", func(p *corev1.Probe) { p.InitialDelaySeconds = 1 })}, podlife.Probe{})
		w.set("ready", 1)
		time.Sleep(1250 * time.Millisecond)
		w.set("ready", 0)
		time.Sleep(time.Second)
		w.want(t, "1.3s started=true ready=true unhealthy=false")
		w.cancel()
	})
}

func TestInitialDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watchOn(&corev1.Container{ReadinessProbe: exec("ready", func(p *corev1.Probe) { p.InitialDelaySeconds = 7 })}, podlife.Probe{})
		time.Sleep(10 * time.Second)
		w.want(t, "7s started=true ready=true unhealthy=false")
		w.cancel()
	})
}

func TestLivenessFailsForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watchOn(&corev1.Container{Name: "c", LivenessProbe: exec("live")}, podlife.Probe{})
		time.Sleep(5 * time.Second)
		w.set("live", 1)
		time.Sleep(20 * time.Second)
		w.set("live", -1) // an unanswered probe counts for nothing
		time.Sleep(10 * time.Second)
		w.want(t)
		w.set("live", 1)
		time.Sleep(10 * time.Second)
		w.want(t)
		time.Sleep(20 * time.Second)
		w.want(t, "1m0s started=true ready=true unhealthy=true")
		w.cancel()
	})
}

func TestStartupHoldsTheOthersBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &corev1.Container{StartupProbe: exec("start"), ReadinessProbe: exec("ready"), LivenessProbe: exec("live")}
		w := watchOn(c, podlife.Probe{})
		w.want(t, "0s started=true ready=false unhealthy=false", "0s started=true ready=true unhealthy=false")
		w.cancel()

		w = watchOn(c, podlife.Probe{})
		w.set("start", 1)
		w.set("live", 1)
		time.Sleep(15 * time.Second)
		w.cancel()
		w.mu.Lock()
		if w.tries["live"]+w.tries["ready"] > 2 { // the first answers may come before set
			t.Errorf("probed before the start: %v", w.tries)
		}
		w.mu.Unlock()
	})
}

// TestStartupFailureThreshold: early extra tries do not use up the threshold.
func TestStartupFailureThreshold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &corev1.Container{Name: "c", StartupProbe: exec("false")}
		began := time.Now()
		p := &Prober{Exec: func(context.Context, string, []string, time.Duration) ([]byte, []byte, error) {
			return []byte("no"), nil, utilexec.CodeExitError{Err: errors.New("exit"), Code: 1}
		}}
		done := make(chan podlife.Probe, 1)
		go p.Watch(t.Context(), Target{Container: c, ID: "id", Started: time.Now()}, podlife.Probe{}, func(s podlife.Probe) { done <- s }, func(_, _, _ string) {})
		s := <-done
		if took := time.Since(began); took != 20*time.Second || !s.Unhealthy || s.Message != "Container c failed startup probe, will be restarted" {
			t.Errorf("after %v: %+v", took, s)
		}
	})
}

func TestResumedContainerIsReadyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &corev1.Container{StartupProbe: exec("start"), ReadinessProbe: exec("ready")}
		w := watchOn(c, podlife.Probe{Started: true, Ready: true})
		time.Sleep(time.Second)
		w.want(t)
		w.mu.Lock()
		if w.tries["start"] > 0 {
			t.Error("a container that had started was asked whether it has")
		}
		w.mu.Unlock()
		w.cancel()
	})
}

func hostPort(t *testing.T, addr string) (string, int32) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(port)
	return host, int32(n)
}

func tryOn(t *testing.T, c *corev1.Container, ip string, h corev1.ProbeHandler) (outcome, string) {
	t.Helper()
	w := &watch{Prober: &Prober{}, Target: Target{Container: c, IP: ip}}
	return w.try(t.Context(), &corev1.Probe{ProbeHandler: h, TimeoutSeconds: 1})
}

func TestHTTP(t *testing.T) {
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) {
		if r.UserAgent() != userAgent || r.Header.Get("X") != "y" || r.Host != "example.com" || r.URL.RawQuery != "a=b" {
			t.Errorf("request %v", r)
		}
	})
	mux.HandleFunc("/bad", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, strings.Replace(other.URL, "127.0.0.1", "localhost", 1), http.StatusFound)
	})
	plain, secure := httptest.NewServer(mux), httptest.NewTLSServer(mux)
	defer plain.Close()
	defer secure.Close()
	for _, c := range []struct {
		server *httptest.Server
		path   string
		want   outcome
	}{{plain, "/ok?a=b", success}, {secure, "/ok?a=b", success}, {plain, "/bad", failure}, {plain, "/none", failure}, {plain, "/away", success}, {plain, "/slow", failure}} {
		u, err := url.Parse(c.server.URL)
		if err != nil {
			t.Fatal(err)
		}
		host, port := hostPort(t, u.Host)
		container := &corev1.Container{Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: port}}}
		got, detail := tryOn(t, container, host, corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
			Path: c.path, Port: intstr.FromString("web"), Scheme: corev1.URIScheme(strings.ToUpper(u.Scheme)),
			HTTPHeaders: []corev1.HTTPHeader{{Name: "X", Value: "y"}, {Name: "Host", Value: "example.com"}},
		}})
		if got != c.want {
			t.Errorf("%s%s: %v %s", c.server.URL, c.path, got, detail)
		}
	}
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host, port := hostPort(t, l.Addr().String())
	h := corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(port)}}
	if got, detail := tryOn(t, &corev1.Container{}, host, h); got != success {
		t.Errorf("open port: %v %s", got, detail)
	}
	_ = l.Close()
	if got, _ := tryOn(t, &corev1.Container{}, host, h); got != failure {
		t.Errorf("closed port: %v", got)
	}
	h.TCPSocket.Port = intstr.FromString("nameless")
	if got, detail := tryOn(t, &corev1.Container{Name: "c"}, host, h); got != unknown || !strings.Contains(detail, `no port named "nameless"`) {
		t.Errorf("unknown port: %v %s", got, detail)
	}
}

func TestGRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, h := grpc.NewServer(), health.NewServer()
	healthpb.RegisterHealthServer(s, h)
	go func() { _ = s.Serve(l) }()
	defer s.Stop()
	host, port := hostPort(t, l.Addr().String())
	service := "db"
	h.SetServingStatus(service, healthpb.HealthCheckResponse_NOT_SERVING)
	for _, c := range []struct {
		service *string
		want    outcome
	}{{nil, success}, {&service, failure}} {
		if got, detail := tryOn(t, &corev1.Container{}, host, corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: port, Service: c.service}}); got != c.want {
			t.Errorf("%v: %v %s", c.service, got, detail)
		}
	}
}
