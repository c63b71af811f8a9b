package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
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

// Servers are the API servers: those that are published as live, and the one the agent was told of.
// The agent's own client connects by DialContext; what pods and the host send to the API's ClusterIP
// is passed on, connection by connection.
//
// That works in user space because it must know that a server does not answer before it gives a
// connection to it: NAT rules cannot, and would need a rule for every server, renewed with every
// change, on every node. The kernel still moves the bytes (Go splices TCP to TCP), a connection
// costs two goroutines, and an agent has a handful of them. TLS stays between the two ends.
type Servers struct {
	// fallback is the address the agent was given; tried last, and the only one known at first.
	fallback string
	// loopbackPort is set if that is on this machine's loopback, where pods cannot reach it.
	loopbackPort string
	dial         func(ctx context.Context, address string) (net.Conn, error)

	mu    sync.Mutex
	live  []string // as published
	avoid map[string]time.Time
	next  int
}

// NewServers begins with the server's URL that the agent was given.
func NewServers(server string) *Servers {
	address, loopbackPort := serverAddress(server)
	dialer := &net.Dialer{Timeout: dialTimeout}
	return &Servers{
		fallback:     address,
		loopbackPort: loopbackPort,
		avoid:        map[string]time.Time{},
		dial: func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		},
	}
}

// serverAddress is the host and port of a server's URL, and the port if the host is loopback.
func serverAddress(server string) (address, loopbackPort string) {
	u, err := url.Parse(server)
	if err != nil || u.Hostname() == "" {
		return "", ""
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	if ip := net.ParseIP(u.Hostname()); ip != nil && ip.IsLoopback() || u.Hostname() == "localhost" {
		loopbackPort = port
	}
	return net.JoinHostPort(u.Hostname(), port), loopbackPort
}

// DialContext connects to a server that answers, whatever address is asked for. It is for a client
// that knows the servers by a name that all their certificates carry.
func (s *Servers) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	return s.connect(ctx)
}

// setServers takes in the live servers' addresses.
func (s *Servers) setServers(addresses []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live = slices.Compact(slices.Sorted(slices.Values(addresses)))
	for address := range s.avoid {
		if !slices.Contains(s.live, address) {
			delete(s.avoid, address)
		}
	}
}

// order is the servers in the order in which a connection tries them: each connection begins with
// another one, those that failed lately come behind, the fallback last.
func (s *Servers) order(now time.Time) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var good, bad []string
	for i := range s.live {
		address := s.live[(s.next+i)%len(s.live)]
		if now.Before(s.avoid[address]) {
			bad = append(bad, address)
		} else {
			good = append(good, address)
		}
	}
	s.next++
	order := slices.Concat(good, bad)
	if s.fallback != "" && !slices.Contains(order, s.fallback) {
		order = append(order, s.fallback)
	}
	return order
}

// connect returns a connection to the first server that answers.
func (s *Servers) connect(ctx context.Context) (net.Conn, error) {
	var errs []error
	for _, address := range s.order(time.Now()) {
		conn, err := s.dial(ctx, address)
		if err == nil {
			s.mu.Lock()
			delete(s.avoid, address)
			s.mu.Unlock()
			return conn, nil
		}
		errs = append(errs, err)
		s.mu.Lock()
		if address != s.fallback {
			s.avoid[address] = time.Now().Add(avoidFor)
		}
		s.mu.Unlock()
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("no API server answers: %w", errors.Join(errs...))
}

// serve accepts connections until ctx ends; then it closes those that are open too.
func (s *Servers) serve(ctx context.Context, l net.Listener) {
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
		conns.Go(func() { s.forward(ctx, client) })
	}
}

func (s *Servers) forward(ctx context.Context, client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := s.connect(ctx)
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
