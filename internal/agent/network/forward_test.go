package network

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"
)

// echo is a server that reads until its client has no more to say, and then answers with its name
// and what it read.
func echo(t *testing.T, name string) (address string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				said, _ := io.ReadAll(conn)
				fmt.Fprintf(conn, "%s:%s", name, said)
			}()
		}
	}()
	return l.Addr().String(), func() { _ = l.Close() }
}

// serve runs s in front of its servers and returns its address.
func serve(t *testing.T, s *Servers) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); s.serve(ctx, l) }()
	t.Cleanup(func() { cancel(); <-ended })
	return l.Addr().String()
}

// ask sends words, ends its half of the connection, and returns the answer.
func ask(t *testing.T, address, words string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, words); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

func TestForwarderPassesHalfClosedConnections(t *testing.T) {
	server, _ := echo(t, "a")
	front := serve(t, NewServers("https://"+server))
	big := strings.Repeat("x", 1<<20)
	if got := ask(t, front, big); got != "a:"+big {
		t.Errorf("answer of %d bytes, want %d", len(got), len(big)+2)
	}
}

func TestForwarderFailsOver(t *testing.T) {
	a, stopA := echo(t, "a")
	b, stopB := echo(t, "b")
	last, _ := echo(t, "last")
	s := NewServers("https://" + last)
	front := serve(t, s)
	if got := ask(t, front, ""); got != "last:" {
		t.Errorf("with nothing published: %q", got)
	}
	s.setServers([]string{a, b, a})
	seen := map[string]int{}
	for range 10 {
		seen[ask(t, front, "")]++
	}
	if diff := cmp.Diff(map[string]int{"a:": 5, "b:": 5}, seen); diff != "" {
		t.Errorf("ten connections: %s", diff)
	}
	stopA()
	for range 4 {
		if got := ask(t, front, ""); got != "b:" {
			t.Errorf("without a: %q", got)
		}
	}
	stopB()
	if got := ask(t, front, ""); got != "last:" {
		t.Errorf("without a and b: %q", got)
	}
}

func TestServersOrder(t *testing.T) {
	s := NewServers("https://last:6443")
	s.setServers([]string{"c:1", "a:1", "b:1"})
	now := time.Now()
	s.avoid["b:1"] = now.Add(time.Second)
	for _, want := range [][]string{
		{"a:1", "c:1", "b:1", "last:6443"}, {"c:1", "a:1", "b:1", "last:6443"}, {"c:1", "a:1", "b:1", "last:6443"}, {"a:1", "c:1", "b:1", "last:6443"},
	} {
		if diff := cmp.Diff(want, s.order(now)); diff != "" {
			t.Error(diff)
		}
	}
	if got := s.order(now.Add(2 * time.Second)); got[0] != "b:1" {
		t.Errorf("a server is avoided for too long: %v", got)
	}
	s.setServers([]string{"last:6443"})
	if diff := cmp.Diff([]string{"last:6443"}, s.order(now)); diff != "" {
		t.Errorf("the given server is published too: %s", diff)
	}
	if len(s.avoid) != 0 {
		t.Errorf("servers that are gone are remembered: %v", s.avoid)
	}
}

func TestNoServerAnswers(t *testing.T) {
	s := NewServers("https://a:1")
	s.dial = func(_ context.Context, address string) (net.Conn, error) {
		return nil, errors.New(address + " refused")
	}
	s.setServers([]string{"b:1"})
	_, err := s.DialContext(t.Context(), "tcp", "ignored:1")
	if err == nil || !strings.Contains(err.Error(), "a:1 refused") || !strings.Contains(err.Error(), "b:1 refused") {
		t.Errorf("error %v, want both servers' reasons", err)
	}
}

func TestStoppingEndsConnections(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); NewServers("https://"+l.Addr().String()).serve(ctx, front) }()
	conn, err := net.Dial("tcp", front.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := l.Accept(); err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("an open connection keeps the forwarder")
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := bufio.NewReader(conn).ReadByte(); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the connection is still open: %v", err)
	}
}

func TestServerAddress(t *testing.T) {
	tests := []struct{ url, address, loopback string }{
		{"https://127.0.0.1:6443", "127.0.0.1:6443", "6443"},
		{"https://localhost:7443", "localhost:7443", "7443"},
		{"https://[::1]:6443", "[::1]:6443", "6443"},
		{"https://10.0.0.1:6443", "10.0.0.1:6443", ""},
		{"https://api.example.com", "api.example.com:443", ""},
		{"", "", ""},
	}
	for _, tt := range tests {
		address, loopback := serverAddress(tt.url)
		if address != tt.address || loopback != tt.loopback {
			t.Errorf("serverAddress(%q) = %q, %q, want %q, %q", tt.url, address, loopback, tt.address, tt.loopback)
		}
	}
}

func TestEndpoints(t *testing.T) {
	slice := &discoveryv1.EndpointSlice{
		Ports: []discoveryv1.EndpointPort{{Name: ptr.To("https"), Port: ptr.To[int32](6443)}, {Name: ptr.To("metrics"), Port: ptr.To[int32](1)}},
		Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"10.0.0.1"}},
			{Addresses: []string{"10.0.0.2"}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(false)}},
			{Addresses: []string{"2001:db8::1"}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}},
		},
	}
	if diff := cmp.Diff([]string{"10.0.0.1:6443", "[2001:db8::1]:6443"}, endpoints(slice)); diff != "" {
		t.Error(diff)
	}
}
