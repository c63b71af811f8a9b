package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"k8s.io/klog/v2"
)

const (
	// dialTimeout is how long one server may take to answer before the next is tried.
	dialTimeout = 2 * time.Second
	// avoidFor keeps a server that could not be reached at the end of the line.
	avoidFor = 10 * time.Second
)

// forwarder passes TCP connections on to an API server that answers.
//
// It works in user space because it must know that a server does not answer before it gives a
// connection to it: NAT rules cannot, and would need a rule for every server, renewed with every
// change, on every node. The kernel still moves the bytes (Go splices TCP to TCP), a connection
// costs two goroutines, and an agent has a handful of them. TLS stays between the two ends.
type forwarder struct {
	// fallback is the address the agent was given; tried last, and the only one known at first.
	fallback string
	dial     func(ctx context.Context, address string) (net.Conn, error)

	mu    sync.Mutex
	live  []string // as published
	avoid map[string]time.Time
	next  int
}

func newForwarder(fallback string) *forwarder {
	dialer := &net.Dialer{Timeout: dialTimeout}
	return &forwarder{
		fallback: fallback,
		avoid:    map[string]time.Time{},
		dial: func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		},
	}
}

// setServers takes in the live servers' addresses.
func (f *forwarder) setServers(addresses []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.live = slices.Compact(slices.Sorted(slices.Values(addresses)))
	for address := range f.avoid {
		if !slices.Contains(f.live, address) {
			delete(f.avoid, address)
		}
	}
}

// order is the servers in the order in which a connection tries them: each connection begins with
// another one, those that failed lately come behind, the fallback last.
func (f *forwarder) order(now time.Time) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var good, bad []string
	for i := range f.live {
		address := f.live[(f.next+i)%len(f.live)]
		if now.Before(f.avoid[address]) {
			bad = append(bad, address)
		} else {
			good = append(good, address)
		}
	}
	f.next++
	order := append(good, bad...)
	if f.fallback != "" && !slices.Contains(order, f.fallback) {
		order = append(order, f.fallback)
	}
	return order
}

// connect returns a connection to the first server that answers.
func (f *forwarder) connect(ctx context.Context) (net.Conn, error) {
	var errs []error
	for _, address := range f.order(time.Now()) {
		conn, err := f.dial(ctx, address)
		if err == nil {
			f.mu.Lock()
			delete(f.avoid, address)
			f.mu.Unlock()
			return conn, nil
		}
		errs = append(errs, err)
		f.mu.Lock()
		if address != f.fallback {
			f.avoid[address] = time.Now().Add(avoidFor)
		}
		f.mu.Unlock()
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("no API server answers: %w", errors.Join(errs...))
}

// serve accepts connections until ctx ends; then it closes those that are open too.
func (f *forwarder) serve(ctx context.Context, l net.Listener) {
	var conns sync.WaitGroup
	defer conns.Wait()
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	defer func() { _ = l.Close() }()
	for {
		client, err := l.Accept()
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
			return
		}
		if err != nil {
			// Out of file descriptors, say. It passes; a busy loop would not help.
			klog.FromContext(ctx).Error(err, "Cannot accept a connection to the API server", "address", l.Addr())
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		conns.Go(func() { f.forward(ctx, client) })
	}
}

func (f *forwarder) forward(ctx context.Context, client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := f.connect(ctx)
	if err != nil {
		klog.FromContext(ctx).V(2).Info("Refused a connection to the API server", "from", client.RemoteAddr(), "err", err)
		return
	}
	defer func() { _ = server.Close() }()
	defer context.AfterFunc(ctx, func() { _ = client.Close(); _ = server.Close() })()
	var both sync.WaitGroup
	both.Go(func() { pass(server, client) })
	both.Go(func() { pass(client, server) })
	both.Wait()
}

// pass copies until from has no more to say, and then says so to the other end; the other direction
// goes on. After a failure both ends are told at once.
func pass(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if half, ok := to.(interface{ CloseWrite() error }); ok && err == nil {
		_ = half.CloseWrite()
		return
	}
	_, _ = to.Close(), from.Close()
}
