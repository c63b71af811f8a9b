// Package apiserver is the Kubernetes API of everynode: upstream's generic server and registries, installed for the
// kinds that everynode has controllers for and no others, with upstream's authentication, authorization and admission.
//
// It is started by the command line, which hands it an open store and the PKI, and gives its client configuration,
// informers and direct writer to the controllers and the scheduler. It runs no controllers itself beyond those that
// belong to the API: bootstrap roles, system namespaces and priority classes, service address repair, and the
// endpoints of Service default/kubernetes.
package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/apiserver/direct"
	"github.com/everynode/everynode/internal/apiserver/inprocess"
)

// Server is an API server that has its listeners open and its kinds installed.
type Server struct {
	options   Options
	generic   *genericapiserver.GenericAPIServer
	informers informers.SharedInformerFactory
	loopback  *rest.Config
	transport *inprocess.Transport // of loopback
	store     mortal
	address   *net.TCPAddr
	writer    *direct.Writer
	sources   *direct.Sources
	ready     chan struct{}
}

// mortal is what can fail for good while the server runs.
type mortal interface {
	Failed() <-chan struct{}
	Err() error
}

// New opens the listeners and builds the server; it serves nothing before Run. An error names what is in the way and
// what to do.
func New(ctx context.Context, o Options) (_ *Server, err error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	l, err := listen(ctx, o.Listen, o.ExtraListen)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = l.Close()
		}
	}()
	a, err := assemble(ctx, &o, l)
	if err != nil {
		return nil, fmt.Errorf("apiserver: %w", err)
	}
	return &Server{
		options:   o,
		generic:   a.server,
		informers: a.informers,
		loopback:  a.generic.LoopbackClientConfig,
		transport: a.loopback,
		store:     o.Store,
		address:   l.Addr().(*net.TCPAddr),
		writer:    a.writer,
		sources:   a.sources,
		ready:     make(chan struct{}),
	}, nil
}

// Run serves until ctx ends or the store fails for good. It returns within five seconds of that. The certificates are
// read anew when their files change; keeping the files fresh is up to the caller (pki.Bundle.Keep).
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	prepared := s.generic.PrepareRun()
	s.transport.Open(s.generic.Handler)
	defer s.transport.Close()
	go s.awaitReady(ctx)

	done := make(chan error, 1)
	go func() { done <- prepared.RunWithContext(ctx) }()
	select {
	case err := <-done:
		return err
	case <-s.store.Failed():
		cancel(fmt.Errorf("the store failed: %w", s.store.Err()))
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return errors.Join(storeFailure(ctx), err)
	case <-time.After(stopTimeout):
		klog.InfoS("The API server did not stop in time; leaving anyway", "after", stopTimeout)
		return storeFailure(ctx)
	}
}

// storeFailure is the cause of a context that ended by itself, or nil when it was asked to end.
func storeFailure(ctx context.Context) error {
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// Ready is closed when /readyz passes for the first time.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// ClientConfig is for this process only: unthrottled, protobuf, allowed everything, and without a connection: requests
// go straight to the server's filters. It answers from Run on.
func (s *Server) ClientConfig() *rest.Config { return rest.CopyConfig(s.loopback) }

// Informers are the caches that authentication, authorization and admission use. Controllers in this process should
// share them. They are started with the server; whoever adds one later starts the factory again. Objects in them carry
// no managedFields and must not be changed.
func (s *Server) Informers() informers.SharedInformerFactory { return s.informers }

// Writer writes pods and DaemonSet statuses straight to the registries, for controllers in this process.
func (s *Server) Writer() *direct.Writer { return s.writer }

// Sources list and watch what the DaemonSet controller follows straight at the registries, for controllers in this
// process.
func (s *Server) Sources() *direct.Sources { return s.sources }

// Address is the address the server listens on, with the port that was chosen.
func (s *Server) Address() *net.TCPAddr { return s.address }

func (s *Server) awaitReady(ctx context.Context) {
	client, err := kubernetes.NewForConfig(s.loopback)
	if err != nil {
		klog.ErrorS(err, "Cannot ask the server whether it is ready")
		return
	}
	_ = wait.PollUntilContextCancel(ctx, 20*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		var code int
		client.CoreV1().RESTClient().Get().AbsPath("/readyz").Do(ctx).StatusCode(&code)
		if code != http.StatusOK {
			return false, nil
		}
		close(s.ready)
		return true, nil
	})
}
