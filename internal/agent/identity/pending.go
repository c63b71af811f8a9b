package identity

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"github.com/everynode/everynode/internal/jointoken"
)

// patience is how long a request waits for the identity: long enough for a join, and for a server that
// is just starting; short enough that whoever can do without the server soon knows.
const patience = 5 * time.Second

// ErrPending is what a request gets that has waited in vain. Run has said why.
var ErrPending = errors.New("this node has no valid identity yet, and cannot talk to the server")

// Pending is an identity that Run obtains. What needs no server works meanwhile; what does may be made
// and started as well: requests wait for the identity, and fail when that takes long, as they do
// when the server is away.
type Pending struct {
	o Options
	// ready is closed when there is an identity; identity and transport are set before.
	ready     chan struct{}
	identity  *Identity
	transport http.RoundTripper
	// why is what keeps the identity away, as last heard.
	why atomic.Pointer[error]
}

// New checks the options. Nothing is read or asked before Run.
func New(o Options) (*Pending, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("node identity: %w", err)
	}
	p := &Pending{o: o, ready: make(chan struct{})}
	p.o.Waiting = func(err error) {
		p.why.Store(&err)
		o.waitFor(err)
	}
	return p, nil
}

// Run obtains the identity and keeps it fresh until ctx ends. Its error is what waiting does not cure.
func (p *Pending) Run(ctx context.Context) error {
	i, err := obtain(ctx, p.o)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	if p.transport, err = rest.TransportFor(i.Config()); err != nil {
		return fmt.Errorf("client of the API server: %w", err)
	}
	p.identity = i
	close(p.ready)
	return i.Run(ctx)
}

// Ready is closed when there is an identity.
func (p *Pending) Ready() <-chan struct{} { return p.ready }

// Identity waits for the identity; nil: ctx has ended.
func (p *Pending) Identity(ctx context.Context) *Identity {
	select {
	case <-ctx.Done():
		return nil
	case <-p.ready:
		return p.identity
	}
}

// CA is the server's CA as PEM; nil before there is an identity.
func (p *Pending) CA() []byte {
	select {
	case <-p.ready:
		return p.identity.CA()
	default:
		return nil
	}
}

// Config is that of Identity, usable from now on.
func (p *Pending) Config() *rest.Config {
	return &rest.Config{Host: p.o.Server, Transport: p, ContentConfig: contentConfig, UserAgent: userAgent, QPS: -1}
}

// RoundTrip implements http.RoundTripper.
func (p *Pending) RoundTrip(r *http.Request) (*http.Response, error) {
	select {
	case <-p.ready:
		return p.transport.RoundTrip(r)
	default:
	}
	wait := time.NewTimer(patience)
	defer wait.Stop()
	select {
	case <-p.ready:
		return p.transport.RoundTrip(r)
	case <-r.Context().Done():
		return nil, r.Context().Err()
	case <-wait.C:
	}
	if why := p.why.Load(); why != nil {
		return nil, fmt.Errorf("%w: %w", ErrPending, *why)
	}
	return nil, ErrPending
}

// Holder names who this machine is by what is on disk, run out or not: the node, and the server's CA.
// It is "" for a machine that has not joined, or is on its way to another server.
func (p *Pending) Holder() string {
	ca, err := readIfThere(p.o.path(caFile))
	if err != nil || ca == nil {
		return ""
	}
	hash, err := jointoken.HashCA(ca)
	if err != nil {
		return ""
	}
	pair, err := pairFile(p.o.path(clientFile)).Current()
	if err != nil {
		return ""
	}
	return pair.Leaf.Subject.CommonName + " of " + hash
}

// contentConfig has clients speak protobuf, and take JSON for what has none.
var contentConfig = rest.ContentConfig{
	ContentType: runtime.ContentTypeProtobuf, AcceptContentTypes: runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON,
}
