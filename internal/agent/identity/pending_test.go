package identity

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

func pending(t *testing.T, o Options) *Pending {
	t.Helper()
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A client may be made and used before there is an identity: its requests are answered when there is.
func TestRequestsWaitForTheIdentity(t *testing.T) {
	s := newServer(t)
	p := pending(t, options(t, s))
	if p.CA() != nil || p.Holder() != "" {
		t.Errorf("before it has joined: holder %q, CA %s", p.Holder(), p.CA())
	}
	client := kubernetes.NewForConfigOrDie(p.Config())
	answered := make(chan error)
	go func() {
		_, err := client.CertificatesV1().CertificateSigningRequests().List(t.Context(), metav1.ListOptions{})
		answered <- err
	}()
	go func() {
		if err := p.Run(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	i := p.Identity(t.Context())
	if string(p.CA()) != string(s.ca.pem()) || !strings.HasPrefix(p.Holder(), "system:node:n1 of ") || i == nil {
		t.Errorf("after it has joined: holder %q, CA %s", p.Holder(), p.CA())
	}
	use(t, s, i)
}

// A request does not wait for ever, and says what keeps the identity away.
func TestRequestsWithoutAnIdentityFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pending(t, Options{Server: "https://192.0.2.1:6443", NodeName: "n1", Dir: t.TempDir()})
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://192.0.2.1:6443", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := p.RoundTrip(request); !errors.Is(err, ErrPending) || time.Since(began) != patience {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		why := errors.New("the server cannot be reached")
		p.why.Store(&why)
		if _, err := p.RoundTrip(request); !errors.Is(err, ErrPending) || !errors.Is(err, why) {
			t.Errorf("%v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := p.RoundTrip(request.WithContext(ctx)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		if i := p.Identity(ctx); i != nil {
			t.Errorf("identity %v", i)
		}
	})
}

// What waiting does not cure ends the agent; what it may is waited for as long as it runs.
func TestPendingGivesUp(t *testing.T) {
	s := newServer(t)
	o := options(t, s)
	writeToken(t, o, "nonsense")
	if err := pending(t, o).Run(shortly(t, 20*time.Second)); err == nil || !strings.Contains(err.Error(), "not a join token") {
		t.Errorf("%v", err)
	}
	o.TokenFile += "-not-there"
	if err := pending(t, o).Run(shortly(t, 100*time.Millisecond)); err != nil {
		t.Errorf("stopped while it waited: %v", err)
	}
}

// The holder outlives the certificate and the server, not a move to another one.
func TestHolder(t *testing.T) {
	s, other := newServer(t), newServer(t)
	s.set(func(s *fakeServer) { s.life = -time.Minute })
	o := options(t, s)
	obtained(t, o)
	was := pending(t, o).Holder()
	if was == "" {
		t.Error("a certificate that has run out has no holder")
	}
	s.Close()
	_, _ = untilObtained(shortly(t, 300*time.Millisecond), o)
	if is := pending(t, o).Holder(); is != was {
		t.Errorf("with the server away it is %q, was %q", is, was)
	}
	writeToken(t, o, other.token.String())
	_, _ = untilObtained(shortly(t, 300*time.Millisecond), o)
	if is := pending(t, o).Holder(); is != "" {
		t.Errorf("on the way to another server it is %q", is)
	}
	o.Server = other.URL
	obtained(t, o)
	if is := pending(t, o).Holder(); is == "" || is == was {
		t.Errorf("at the other server it is %q, was %q", is, was)
	}
}
