package streaming

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/kubernetes"
	internalapi "k8s.io/cri-api/pkg/apis"
	"k8s.io/klog/v2"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// stopTimeout bounds how long open streams may go on after the end of Run's context.
const stopTimeout = time.Second

// Pods knows the pods of this node and where their containers are. An empty uid matches any.
type Pods interface {
	Pods() []*corev1.Pod
	Container(namespace, pod string, uid types.UID, container string) (id string, err error)
	LogFile(namespace, pod string, uid types.UID, container string, previous bool) (path, id string, err error)
	Sandbox(namespace, pod string, uid types.UID) (id string, err error)
}

// Stats measures this node. *stats.Provider is the real one.
type Stats interface {
	CPUAndMemory(ctx context.Context) (*statsapi.Summary, error)
	Summary(ctx context.Context) (*statsapi.Summary, error)
	ResourceMetrics() http.Handler
	CAdvisorMetrics() http.Handler
}

// Options of a Server. All fields are required, but Config, Healthy, LogDir, Authenticator and
// Authorizer.
type Options struct {
	// Address to listen on, such as ":10250".
	Address  string
	NodeName string
	// Certificate is this server's own, asked for with each connection.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// ClientCA vouches for callers' certificates; PEM.
	ClientCA []byte
	// Client asks the API server about tokens and rights.
	Client  kubernetes.Interface
	Pods    Pods
	Runtime internalapi.RuntimeService
	Stats   Stats
	// Config is what /configz shows as the kubelet's configuration. None is shown by default.
	Config *kubeletconfig.KubeletConfiguration
	// Healthy says why the pods are not being looked after; nil is healthy, and the default.
	Healthy func() error
	// LogDir is the machine's folder of logs, /var/log by default.
	LogDir string
	// Authenticator and Authorizer replace those made from ClientCA and Client.
	Authenticator authenticator.Request
	Authorizer    authorizer.Authorizer
}

// Validate reports the first option that is missing.
func (o *Options) Validate() error {
	switch {
	case o.Address == "" || o.NodeName == "":
		return errors.New("streaming: Address and NodeName must be set")
	case o.Certificate == nil || len(o.ClientCA) == 0:
		return errors.New("streaming: Certificate and ClientCA must be set")
	case o.Client == nil || o.Pods == nil || o.Runtime == nil || o.Stats == nil:
		return errors.New("streaming: Client, Pods, Runtime and Stats must be set")
	}
	return nil
}

// Server is the node's API.
type Server struct {
	o       Options
	clients *x509.CertPool
	handler http.Handler
}

// New checks the options and returns a Server that does nothing until Run.
func New(o Options) (*Server, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Healthy == nil {
		o.Healthy = func() error { return nil }
	}
	if o.LogDir == "" {
		o.LogDir = "/var/log"
	}
	clients := x509.NewCertPool()
	if !clients.AppendCertsFromPEM(o.ClientCA) {
		return nil, errors.New("streaming: there is no certificate in ClientCA")
	}
	access, err := newAccess(&o)
	if err != nil {
		return nil, err
	}
	s := &Server{o: o, clients: clients}
	s.handler = access.guard(s.routes())
	return s, nil
}

// Handler is the API behind authentication and authorization.
func (s *Server) Handler() http.Handler { return s.handler }

// Run serves until ctx ends. It returns an error if it cannot listen.
func (s *Server) Run(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.o.Address)
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("the node's API cannot listen on %s: something else does, perhaps a kubelet or another agent (ss -ltnp shows it): stop it, or choose another port with --listen-port", s.o.Address)
	}
	if err != nil {
		return fmt.Errorf("the node's API: %w", err)
	}
	server := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		// Streams end with the agent.
		BaseContext: func(net.Listener) context.Context { return ctx },
		TLSConfig: &tls.Config{
			MinVersion:     tls.VersionTLS12,
			NextProtos:     []string{"h2", "http/1.1"},
			GetCertificate: s.o.Certificate,
			// Asked for, not demanded: a token will do as well. access verifies it.
			ClientAuth: tls.RequestClientCert,
			ClientCAs:  s.clients,
		},
		ErrorLog: klog.NewStandardLogger("WARNING"),
	}
	defer context.AfterFunc(ctx, func() {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if server.Shutdown(stopping) != nil {
			_ = server.Close()
		}
	})()
	klog.FromContext(ctx).Info("Serving the node's API", "address", listener.Addr())
	if err := server.ServeTLS(listener, "", ""); ctx.Err() == nil {
		return fmt.Errorf("the node's API: %w", err)
	}
	return nil
}

// routes are the kubelet's paths, with and without a pod's UID.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	handle := func(f http.HandlerFunc, patterns ...string) {
		for _, pattern := range patterns {
			mux.HandleFunc(pattern, f)
		}
	}
	handle(s.containerLogs, "GET /containerLogs/{namespace}/{pod}/{container}")
	for path, f := range map[string]http.HandlerFunc{"exec": s.exec, "attach": s.attach} {
		handle(f, "GET /"+path+"/{namespace}/{pod}/{container}", "POST /"+path+"/{namespace}/{pod}/{container}",
			"GET /"+path+"/{namespace}/{pod}/{uid}/{container}", "POST /"+path+"/{namespace}/{pod}/{uid}/{container}")
	}
	handle(s.portForward, "GET /portForward/{namespace}/{pod}", "POST /portForward/{namespace}/{pod}",
		"GET /portForward/{namespace}/{pod}/{uid}", "POST /portForward/{namespace}/{pod}/{uid}")
	handle(s.run, "POST /run/{namespace}/{pod}/{container}", "POST /run/{namespace}/{pod}/{uid}/{container}")
	handle(s.pods, "GET /pods", "GET /pods/")
	handle(s.runningPods, "GET /runningpods", "GET /runningpods/")
	s.addStatus(mux)
	return mux
}
