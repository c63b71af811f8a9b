package inprocess

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"sync"

	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/apiserver/growstack"
)

// ErrClosed is the error of requests after Close, and of answers that it cut off.
var ErrClosed = errors.New("the API server of this process has stopped")

// remoteAddr is where requests say they are from: this machine.
const remoteAddr = "127.0.0.1:0"

// Transport is an http.RoundTripper. The zero value waits, as a connection to a server that does not accept yet would.
// It is safe for concurrent use.
type Transport struct {
	once    sync.Once
	opened  chan struct{}
	handler http.Handler
	life    context.Context // of the server: requests end with it
	close   context.CancelCauseFunc
}

func (t *Transport) init() {
	t.once.Do(func() {
		t.opened = make(chan struct{})
		t.life, t.close = context.WithCancelCause(context.Background())
	})
}

// Open has h answer from now on. It is called once.
func (t *Transport) Open(h http.Handler) {
	t.init()
	t.handler = h
	close(t.opened)
}

// Close ends all requests, those that run too. It does not wait for their handlers.
func (t *Transport) Close() {
	t.init()
	t.close(ErrClosed)
}

// RoundTrip implements http.RoundTripper. It returns when the handler begins to answer, or ends.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	t.init()
	// The client's context ends the request, and is not the server's: what it says of another request that this one
	// is made for (who asks, its audit event) must not be taken for this one's.
	ctx, cancel := context.WithCancelCause(t.life)
	stop := context.AfterFunc(r.Context(), func() { cancel(context.Cause(r.Context())) })
	if err := t.await(ctx); err != nil {
		stop()
		cancel(err)
		closeBody(r)
		return nil, fmt.Errorf("%s %s: %w", r.Method, r.URL.Path, err)
	}
	a := newAnswer(cancel)
	go func() {
		defer stop()
		growstack.Grow()
		t.serve(ctx, a, received(ctx, r))
	}()
	select {
	case <-a.begun:
		return a.response(r)
	case <-ctx.Done():
	}
	// The context also ends when the handler has returned, and then there is an answer.
	select {
	case <-a.begun:
		return a.response(r)
	default:
		return nil, context.Cause(ctx)
	}
}

// await waits until there is somebody to answer.
func (t *Transport) await(ctx context.Context) error {
	select {
	case <-t.opened:
		return context.Cause(ctx) // nil while it lasts
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// serve runs the handler; what it panics with ends the request alone, as it does in net/http.
func (t *Transport) serve(ctx context.Context, a *answer, r *http.Request) {
	stop := context.AfterFunc(ctx, func() { a.abort(context.Cause(ctx)) })
	defer func() {
		stop()
		if p := recover(); p != nil {
			if p != http.ErrAbortHandler { //nolint:errorlint // as net/http compares it
				klog.ErrorS(nil, "Panic while serving a request of this process", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
			}
			a.abort(io.ErrUnexpectedEOF)
		}
		a.finish()
		a.cancel(context.Canceled) // as net/http does when a handler has returned
		_ = r.Body.Close()
	}()
	t.handler.ServeHTTP(a, r)
}

// received is the request as a server would have it: filters may change it.
func received(ctx context.Context, r *http.Request) *http.Request {
	s := r.WithContext(ctx)
	s.Header = r.Header.Clone()
	u := *r.URL
	s.URL = &u
	s.RequestURI = u.RequestURI()
	if s.Host == "" {
		s.Host = u.Host
	}
	s.RemoteAddr = remoteAddr
	s.Proto, s.ProtoMajor, s.ProtoMinor = "HTTP/2.0", 2, 0
	s.GetBody = nil
	if s.Body == nil {
		s.Body = http.NoBody
	}
	return s
}

func closeBody(r *http.Request) {
	if r.Body != nil {
		_ = r.Body.Close() // a RoundTripper must, even when it refuses
	}
}
