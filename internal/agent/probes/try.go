package probes

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	utilexec "k8s.io/utils/exec"

	"github.com/everynode/everynode/internal/agent/env"
)

// outcome of one probe.
type outcome int

const (
	success outcome = iota + 1
	failure
	// unknown: the probe itself could not be made; it counts for nothing.
	unknown
)

// String is the outcome's name in metrics.
func (o outcome) String() string {
	switch o {
	case success:
		return "successful"
	case failure:
		return "failed"
	}
	return "unknown"
}

// maxOutput is how much of an answer is kept for messages.
const maxOutput = 10 << 10

// userAgent is what services know probes by.
const userAgent = "kube-probe/1.36"

// try makes one probe and says how it went.
func (w *watch) try(ctx context.Context, spec *corev1.Probe) (outcome, string) {
	timeout := time.Duration(max(spec.TimeoutSeconds, 1)) * time.Second
	probeCtx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	switch {
	case spec.Exec != nil:
		return w.tryExec(ctx, spec.Exec, timeout)
	case spec.HTTPGet != nil:
		return w.tryHTTP(probeCtx, spec.HTTPGet)
	case spec.TCPSocket != nil:
		return w.tryTCP(probeCtx, spec.TCPSocket)
	case spec.GRPC != nil:
		return w.tryGRPC(probeCtx, spec.GRPC)
	}
	return unknown, "the probe has no handler"
}

func (w *watch) tryExec(ctx context.Context, a *corev1.ExecAction, timeout time.Duration) (outcome, string) {
	vars := make([]env.Var, 0, len(w.Container.Env))
	for _, v := range w.Container.Env {
		vars = append(vars, env.Var{Name: v.Name, Value: v.Value})
	}
	cmd := make([]string, len(a.Command))
	for i, word := range a.Command {
		cmd[i] = env.Expand(word, vars)
	}
	stdout, stderr, err := w.Exec(ctx, w.ID, cmd, timeout)
	out := clip(string(stdout) + string(stderr))
	var exit utilexec.ExitError
	switch {
	case err == nil:
		return success, out
	case errors.As(err, &exit):
		if exit.ExitStatus() == 0 {
			return success, out
		}
		return failure, out
	case timedOut(err):
		return failure, fmt.Sprintf("command timed out: %q timed out after %s", strings.Join(cmd, " "), timeout)
	}
	return unknown, err.Error()
}

// timedOut recognizes the runtime's answer to a command that took too long.
func timedOut(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded || strings.Contains(err.Error(), "command timed out")
}

func (w *watch) tryTCP(ctx context.Context, a *corev1.TCPSocketAction) (outcome, string) {
	port, err := w.port(a.Port)
	if err != nil {
		return unknown, err.Error()
	}
	conn, err := dialer().DialContext(ctx, "tcp", net.JoinHostPort(w.host(a.Host), port))
	if err != nil {
		return failure, err.Error()
	}
	_ = conn.Close()
	return success, ""
}

func (w *watch) tryGRPC(ctx context.Context, a *corev1.GRPCAction) (outcome, string) {
	addr := net.JoinHostPort(w.IP, strconv.Itoa(int(a.Port)))
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUserAgent(userAgent),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return dialer().DialContext(ctx, "tcp", addr)
		}))
	if err != nil {
		return unknown, err.Error()
	}
	defer conn.Close()
	service := ""
	if a.Service != nil {
		service = *a.Service
	}
	r, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service}, grpc.WaitForReady(true))
	switch {
	case status.Code(err) == codes.Unimplemented:
		return failure, fmt.Sprintf("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): %s", err)
	case status.Code(err) == codes.DeadlineExceeded:
		return failure, fmt.Sprintf("timeout: health rpc to %q did not complete", addr)
	case err != nil:
		return failure, "error: health rpc probe failed: " + err.Error()
	case r.GetStatus() != healthpb.HealthCheckResponse_SERVING:
		return failure, fmt.Sprintf("service unhealthy (responded with %q)", r.GetStatus())
	}
	return success, ""
}

func (w *watch) tryHTTP(ctx context.Context, a *corev1.HTTPGetAction) (outcome, string) {
	port, err := w.port(a.Port)
	if err != nil {
		return unknown, err.Error()
	}
	req, err := Request(ctx, a, w.host(a.Host), port)
	if err != nil {
		return unknown, err.Error()
	}
	return get(req)
}

// Request builds the request of an http probe or hook.
func Request(ctx context.Context, a *corev1.HTTPGetAction, host, port string) (*http.Request, error) {
	u, err := url.Parse(a.Path)
	if err != nil {
		u = &url.URL{Path: a.Path} // as the kubelet: a path that is no URL is taken literally
	}
	u.Scheme = "http"
	if a.Scheme == corev1.URISchemeHTTPS {
		u.Scheme = "https"
	}
	u.Host = net.JoinHostPort(host, port)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header = headers(a.HTTPHeaders)
	if h := req.Header.Get("Host"); h != "" {
		req.Host = h
	}
	return req, nil
}

// headers adds the kubelet's defaults; an empty value of them leaves one out.
func headers(list []corev1.HTTPHeader) http.Header {
	h := http.Header{}
	for _, e := range list {
		h.Add(e.Name, e.Value)
	}
	for name, value := range map[string]string{"User-Agent": userAgent, "Accept": "*/*"} {
		if _, set := h[name]; !set {
			h.Set(name, value)
		} else if h.Get(name) == "" && name == "Accept" {
			h.Del(name)
		}
	}
	return h
}

// Send sends an http hook: any answer is good enough, as for the kubelet.
func Send(req *http.Request) error {
	client := &http.Client{Transport: transport(), CheckRedirect: sameHost}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// get sends an http probe. Codes from 200 to 399 are a success; a redirect to
// another host is not followed and counts as one.
func get(req *http.Request) (outcome, string) {
	client := &http.Client{Transport: transport(), CheckRedirect: sameHost}
	resp, err := client.Do(req)
	if err != nil {
		return failure, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxOutput))
	if err != nil {
		return failure, err.Error()
	}
	if resp.StatusCode >= 200 && resp.StatusCode < 400 {
		return success, string(body)
	}
	return failure, fmt.Sprintf("HTTP probe failed with statuscode: %d", resp.StatusCode)
}

func sameHost(req *http.Request, via []*http.Request) error {
	if req.URL.Hostname() != via[0].URL.Hostname() {
		return http.ErrUseLastResponse
	}
	if len(via) >= 10 {
		return errors.New("stopped after 10 redirects")
	}
	return nil
}

// transport keeps no connections: each probe shows whether a new one works.
func transport() *http.Transport {
	return &http.Transport{
		DialContext:        dialer().DialContext,
		TLSClientConfig:    &tls.Config{InsecureSkipVerify: true}, // probes ask whether it answers, not who it is
		DisableKeepAlives:  true,
		DisableCompression: true,
		Proxy:              nil,
	}
}

// dialer closes at once instead of leaving a port in TIME_WAIT for each probe.
func dialer() *net.Dialer {
	return &net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			_ = syscall.SetsockoptLinger(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1, Linger: 1})
		})
	}}
}

func (w *watch) host(given string) string {
	if given != "" {
		return given
	}
	return w.IP
}

func (w *watch) port(p intstr.IntOrString) (string, error) { return Port(w.Container, p) }

// Port is the number of a port that may be given by its name.
func Port(c *corev1.Container, p intstr.IntOrString) (string, error) {
	if p.Type == intstr.Int {
		return strconv.Itoa(p.IntValue()), nil
	}
	for _, known := range c.Ports {
		if known.Name == p.StrVal {
			return strconv.Itoa(int(known.ContainerPort)), nil
		}
	}
	if n, err := strconv.Atoi(p.StrVal); err == nil && n > 0 && n < 65536 {
		return p.StrVal, nil
	}
	return "", fmt.Errorf("container %s has no port named %q", c.Name, p.StrVal)
}

func clip(s string) string {
	if len(s) > maxOutput {
		return s[:maxOutput]
	}
	return s
}
