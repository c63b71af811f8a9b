package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/transport"

	"github.com/everynode/everynode/internal/jointoken"
)

func options(t *testing.T, s *fakeServer) Options {
	t.Helper()
	o := Options{Server: s.URL, NodeName: "n1", Dir: filepath.Join(t.TempDir(), "pki"), TokenFile: filepath.Join(t.TempDir(), "token")}
	writeToken(t, o, s.token.String())
	return o
}

func writeToken(t *testing.T, o Options, token string) {
	t.Helper()
	if err := os.WriteFile(o.TokenFile, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
}

func obtained(t *testing.T, o Options) *Identity {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	i, err := untilObtained(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// untilObtained is what Pending.Run does first.
func untilObtained(ctx context.Context, o Options) (*Identity, error) {
	if _, err := New(o); err != nil {
		return nil, err
	}
	return obtain(ctx, o)
}

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

func TestJoin(t *testing.T) {
	s := newServer(t)
	o := options(t, s)
	i := obtained(t, o)

	requests := s.seen()
	if len(requests) != 1 {
		t.Fatalf("%d requests", len(requests))
	}
	spec := requests[0].Spec
	block, _ := pem.Decode(spec.Request)
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if request.Subject.String() != "CN=system:node:n1,O=system:nodes" || spec.SignerName != certificatesv1.KubeAPIServerClientKubeletSignerName || len(spec.Usages) != 2 {
		t.Errorf("asked for %s from %s with %v", request.Subject, spec.SignerName, spec.Usages)
	}
	if string(i.CA()) != string(s.ca.pem()) || i.NodeName() != "n1" {
		t.Errorf("identity of %s under %s", i.NodeName(), i.CA())
	}
	if exists(t, o.path(joinKeyFile)) {
		// It goes at the next start at the latest; see TestEveryCrashPoint.
		obtained(t, o)
	}
	if err := filepath.WalkDir(o.Dir, func(path string, d fs.DirEntry, _ error) error {
		if fi, err := d.Info(); err != nil || fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v (%v)", path, fi.Mode(), err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	use(t, s, i)
}

// use makes a request with the identity, and looks at who the server saw.
func use(t *testing.T, s *fakeServer, i *Identity) *x509.Certificate {
	t.Helper()
	client := kubernetes.NewForConfigOrDie(i.Config())
	if _, err := client.CertificatesV1().CertificateSigningRequests().List(context.Background(), metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	peer := s.peers[len(s.peers)-1]
	if peer.Subject.CommonName != "system:node:n1" {
		t.Errorf("the server saw %s", peer.Subject)
	}
	return peer
}

func TestARestartNeedsNeitherTokenNorServer(t *testing.T) {
	s := newServer(t)
	o := options(t, s)
	obtained(t, o)
	s.Close()
	o.TokenFile = ""
	obtained(t, o)
	if n := len(s.seen()); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestObtainGivesUpAtOnceOnWhatWaitingDoesNotCure(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(t *testing.T, s *fakeServer, o *Options)
		want   string
	}{
		{"malformed token", func(t *testing.T, _ *fakeServer, o *Options) { writeToken(t, *o, "abc123.0123456789abcdef") }, "not a join token"},
		{"no token file named", func(_ *testing.T, _ *fakeServer, o *Options) { o.TokenFile = "" }, "--token-file"},
		{"token of another server", func(t *testing.T, s *fakeServer, o *Options) {
			token := s.token
			token.CAHash = newAuthority(t).hash()
			writeToken(t, *o, token.String())
		}, "is not the one that the join token was made by"},
		{"the pinned CA in the chain of another", func(t *testing.T, s *fakeServer, o *Options) {
			other := newAuthority(t)
			token := s.token
			token.CAHash = other.hash()
			writeToken(t, *o, token.String())
			s.sendCA = other
		}, "does not vouch for"},
		{"a certificate in the CA's place", func(t *testing.T, s *fakeServer, o *Options) {
			leaf := s.leaf
			der, err := s.ca.sign(&leaf, newECKey(t).Public())
			if err != nil {
				t.Fatal(err)
			}
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			s.sendCA = &authority{cert: cert}
			token := s.token
			token.CAHash = jointoken.HashDER(der)
			writeToken(t, *o, token.String())
		}, "is not the one that the join token was made by"},
		{"a name that the server does not have", func(_ *testing.T, s *fakeServer, _ *Options) { s.leaf.IPAddresses = nil }, "use one of its names in --server (kubernetes)"},
		{"a node in the server's place", func(_ *testing.T, s *fakeServer, _ *Options) { s.leaf.Subject = subject("n2") }, "not the API server but a node"},
		{"a client's certificate in the server's place", func(_ *testing.T, s *fakeServer, _ *Options) {
			s.leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}, "does not vouch for"},
		{"name taken", func(_ *testing.T, s *fakeServer, _ *Options) { s.holders["system:node:n1"] = "another key" }, "the server refuses: node name is taken"},
		{"plain HTTP", func(t *testing.T, _ *fakeServer, o *Options) {
			plain := httptest.NewServer(http.NotFoundHandler())
			t.Cleanup(plain.Close)
			o.Server = strings.Replace(plain.URL, "http:", "https:", 1)
		}, "does not speak TLS"},
		{"token not accepted", func(_ *testing.T, s *fakeServer, _ *Options) { s.revoked = true }, "does not accept join token abc123"},
		{"token not allowed", func(_ *testing.T, s *fakeServer, _ *Options) { s.forbidden = true }, "does not let join token abc123"},
		{"bad name", func(_ *testing.T, _ *fakeServer, o *Options) { o.NodeName = "Node_1" }, "--node-name"},
		{"no server", func(_ *testing.T, _ *fakeServer, o *Options) { o.Server = "" }, "--server"},
		{"a server without TLS", func(_ *testing.T, _ *fakeServer, o *Options) { o.Server = "http://127.0.0.1:1" }, "https://HOST:PORT"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			o := options(t, s)
			s.set(func(s *fakeServer) { c.change(t, s, &o) })
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			_, err := untilObtained(ctx, o)
			switch {
			case err == nil:
				t.Fatal("joined")
			case errors.Is(err, context.DeadlineExceeded):
				t.Fatalf("waited instead of giving up: %v", err)
			case !strings.Contains(err.Error(), c.want):
				t.Errorf("%v\nwant something about %q", err, c.want)
			case strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), s.token.Secret):
				t.Errorf("not one clear line, or with the secret: %v", err)
			}
			if exists(t, o.path(clientFile)) {
				t.Error("a certificate was stored")
			}
		})
	}
}

// TestObtainWaits for what passes: it joins as soon as the trouble is over.
func TestObtainWaits(t *testing.T) {
	for _, c := range []struct {
		name    string
		trouble func(t *testing.T, s *fakeServer, o *Options)
		over    func(t *testing.T, s *fakeServer, o *Options)
		want    string // of the error of one try meanwhile
	}{
		{"not ready", func(_ *testing.T, s *fakeServer, _ *Options) { s.unready = true },
			func(_ *testing.T, s *fakeServer, _ *Options) { s.unready = false }, "not ready yet"},
		{"token file later", func(t *testing.T, _ *fakeServer, o *Options) { writeToken(t, *o, "") },
			func(t *testing.T, s *fakeServer, o *Options) { writeToken(t, *o, s.token.String()) }, "no join token"},
		{"clock behind", func(_ *testing.T, s *fakeServer, _ *Options) { s.clock = time.Hour },
			func(_ *testing.T, s *fakeServer, _ *Options) { s.clock = 0 }, "clock is 60m behind"},
		{"clock ahead", func(_ *testing.T, s *fakeServer, _ *Options) {
			s.clock, s.leaf.NotAfter = -24*time.Hour, time.Now().Add(-time.Hour)
		}, func(_ *testing.T, s *fakeServer, _ *Options) { s.clock, s.leaf.NotAfter = 0, time.Now().Add(time.Hour) }, "clock is 24h ahead"},
		{"server's certificate expired", func(_ *testing.T, s *fakeServer, _ *Options) { s.leaf.NotAfter = time.Now().Add(-time.Minute) },
			func(_ *testing.T, s *fakeServer, _ *Options) { s.leaf.NotAfter = time.Now().Add(time.Hour) }, "restart the server"},
		{"token known a moment later", func(_ *testing.T, s *fakeServer, _ *Options) { s.revoked = true },
			func(_ *testing.T, s *fakeServer, _ *Options) { s.revoked = false }, "Unauthorized"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			o := options(t, s)
			s.set(func(s *fakeServer) { c.trouble(t, s, &o) })
			if err := os.MkdirAll(o.Dir, 0o700); err != nil {
				t.Fatal(err)
			}
			once := &joiner{Options: &o}
			if err := once.try(context.Background()); err == nil || errors.As(err, &hopeless{}) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("one try: %v, want something about %q", err, c.want)
			}
			timer := time.AfterFunc(300*time.Millisecond, func() { s.set(func(s *fakeServer) { c.over(t, s, &o) }) })
			defer timer.Stop()
			obtained(t, o)
		})
	}
}

func TestAServerThatIsNotThereYet(t *testing.T) {
	s := newServer(t)
	o := options(t, s)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.Server = "https://" + l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if _, err := untilObtained(ctx, o); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want it to wait until the context ends", err)
	}
	if _, err := contact(context.Background(), o.Server, s.token.CAHash); err == nil || !strings.Contains(err.Error(), "cannot be reached: dial tcp") {
		t.Errorf("%v", err)
	}
}

// TestEveryCrashPoint cuts a join off wherever it can be: the next start joins with the same key, which is the one
// that the server has given the name to.
func TestEveryCrashPoint(t *testing.T) {
	for name, cut := range map[string]func(t *testing.T, s *fakeServer, o Options){
		"key written, nothing asked": func(t *testing.T, s *fakeServer, o Options) {
			s.set(func(s *fakeServer) { s.revoked = true })
			_, _ = untilObtained(shortly(t, 300*time.Millisecond), o)
			s.set(func(s *fakeServer) { s.revoked = false })
		},
		"asked, not answered": func(t *testing.T, s *fakeServer, o Options) {
			s.set(func(s *fakeServer) { s.undecided = true })
			_, _ = untilObtained(shortly(t, 300*time.Millisecond), o)
			s.set(func(s *fakeServer) { s.undecided = false })
		},
		"name reserved, certificate not read": func(t *testing.T, s *fakeServer, o Options) {
			s.set(func(s *fakeServer) { s.undecided = true })
			_, _ = untilObtained(shortly(t, 300*time.Millisecond), o)
			s.set(func(s *fakeServer) {
				s.undecided = false
				s.judge(s.csrs[s.order[0]])
			})
		},
		"certificate stored, key not cleared away": func(t *testing.T, _ *fakeServer, o Options) {
			obtained(t, o)
			if !exists(t, o.path(joinKeyFile)) {
				t.Fatal("this point does not exist any more")
			}
		},
		"a write was cut off": func(t *testing.T, _ *fakeServer, o Options) {
			if err := os.MkdirAll(o.Dir, 0o755); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{".client.pem.tmp-1", ".join.key.tmp-2"} {
				if err := os.WriteFile(o.path(name), []byte("-----BEGIN"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			o := options(t, s)
			cut(t, s, o)
			obtained(t, o)
			obtained(t, o)
			keys := map[string]bool{}
			for _, r := range s.seen() {
				block, _ := pem.Decode(r.Spec.Request)
				request, err := x509.ParseCertificateRequest(block.Bytes)
				if err != nil {
					t.Fatal(err)
				}
				keys[string(request.RawSubjectPublicKeyInfo)] = true
			}
			if len(keys) != 1 {
				t.Errorf("asked with %d keys", len(keys))
			}
			if entries, _ := os.ReadDir(o.Dir); len(entries) != 2 {
				t.Errorf("left in the directory: %v", entries)
			}
		})
	}
}

func shortly(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// TestTheKeyIsOnDiskBeforeItIsUsed is what TestEveryCrashPoint rests on.
func TestTheKeyIsOnDiskBeforeItIsUsed(t *testing.T) {
	s := newServer(t)
	o := options(t, s)
	if err := os.MkdirAll(o.path(joinKeyFile), 0o700); err != nil { // nothing can be written there
		t.Fatal(err)
	}
	if _, err := untilObtained(shortly(t, 20*time.Second), o); err == nil || !strings.Contains(err.Error(), "save the node's key") {
		t.Errorf("%v", err)
	}
	if n := len(s.seen()); n != 0 {
		t.Errorf("%d requests were sent with a key that a crash would lose", n)
	}
}

func TestAnExpiredIdentityJoinsAgainWithItsKey(t *testing.T) {
	s := newServer(t)
	s.set(func(s *fakeServer) { s.life = -time.Minute })
	o := options(t, s)
	obtained(t, o)
	s.set(func(s *fakeServer) { s.life = time.Hour })

	without := o
	without.TokenFile = ""
	if _, err := untilObtained(shortly(t, 20*time.Second), without); err == nil || !strings.Contains(err.Error(), "certificate expired on ") || !strings.Contains(err.Error(), "no valid identity") {
		t.Errorf("without a token: %v", err)
	}
	use(t, s, obtained(t, o))
}

// TestACertificateExpiresInUse: the node joins again, and clients go on with the new certificate at once.
func TestACertificateExpiresInUse(t *testing.T) {
	s := newServer(t)
	s.set(func(s *fakeServer) { s.life = -time.Minute })
	o := options(t, s)
	joined := make(chan struct{}, 10)
	o.Waiting = func(reason error) {
		if reason == nil {
			joined <- struct{}{}
		}
	}
	i := obtained(t, o)
	<-joined
	client := kubernetes.NewForConfigOrDie(i.Config())
	ask := func() error {
		_, err := client.CertificatesV1().CertificateSigningRequests().List(context.Background(), metav1.ListOptions{})
		return err
	}
	if err := ask(); err == nil {
		t.Error("the server takes a certificate that has run out")
	}
	s.set(func(s *fakeServer) { s.life = time.Hour })
	running(t, i)
	<-joined
	for deadline := time.Now().Add(20 * time.Second); ask() != nil; {
		if time.Now().After(deadline) {
			t.Fatalf("20 s after it has joined again: %v", ask())
		}
	}
}

// TestPersistent: a service tells its trouble and goes on when it is over, without being started again.
func TestPersistent(t *testing.T) {
	s := newServer(t)
	s.set(func(s *fakeServer) { s.holders["system:node:n1"] = "another key" })
	o := options(t, s)
	o.Persistent = true
	var told []string
	o.Waiting = func(reason error) {
		told = append(told, fmt.Sprint(reason))
		if len(told) == 3 {
			s.set(func(s *fakeServer) { clear(s.holders) })
		}
	}
	obtained(t, o)
	if len(told) != 4 || !strings.Contains(told[2], "node name is taken") || told[3] != fmt.Sprint(nil) {
		t.Errorf("told %q", told)
	}
}

func TestATokenOfAnotherServerMovesTheNode(t *testing.T) {
	first, second := newServer(t), newServer(t)
	o := options(t, first)
	obtained(t, o)
	o.Server = second.URL
	writeToken(t, o, second.token.String())
	i := obtained(t, o)
	if string(i.CA()) != string(second.ca.pem()) {
		t.Error("the old CA is still trusted")
	}
	use(t, second, i)
	a, b := first.seen()[0].Spec.Request, second.seen()[0].Spec.Request
	if string(a) == string(b) {
		t.Error("both servers got the same request")
	}
}

func TestAMalformedTokenDoesNotHarmAnIdentity(t *testing.T) {
	s := newServer(t)
	o := options(t, s)
	obtained(t, o)
	writeToken(t, o, "nonsense")
	obtained(t, o)
}

func TestAnIdentityIsForOneName(t *testing.T) {
	s := newServer(t)
	o := options(t, s)
	obtained(t, o)
	o.NodeName = "n2"
	if _, err := untilObtained(shortly(t, 20*time.Second), o); err == nil || !strings.Contains(err.Error(), "system:node:n1, not of node n2") || !strings.Contains(err.Error(), o.Dir) {
		t.Errorf("%v", err)
	}
}

// A node whose identity cannot be read joins again, with its key if that much is left of it, which
// the server knows it by; without a token it says what is spoilt.
func TestASpoiltIdentityJoinsAgain(t *testing.T) {
	for _, c := range []struct {
		name, file string
		spoil      func(text []byte) []byte
		want       string // of the error, "" if it joins
	}{
		{"certificate cut off", clientFile, func(text []byte) []byte { return text[:len(text)-100] }, ""},
		{"CA cut off", caFile, func([]byte) []byte { return []byte("-----BEGIN") }, ""},
		{"key lost", clientFile, func([]byte) []byte { return []byte("\x00garbage") }, "the server refuses: node name is taken"},
		{"empty", clientFile, func([]byte) []byte { return nil }, "the server refuses: node name is taken"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			o := options(t, s)
			obtained(t, o)
			obtained(t, o) // clears the key of the join away
			text, err := os.ReadFile(o.path(c.file))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(o.path(c.file), c.spoil(text), 0o600); err != nil {
				t.Fatal(err)
			}
			without := o
			without.TokenFile = ""
			if _, err := untilObtained(shortly(t, 20*time.Second), without); err == nil || !strings.Contains(err.Error(), c.file) || !strings.Contains(err.Error(), "--token-file") {
				t.Errorf("without a token: %v", err)
			}
			i, err := untilObtained(shortly(t, 20*time.Second), o)
			switch {
			case c.want == "" && err == nil:
				use(t, s, i)
			case err == nil || c.want == "" || !strings.Contains(err.Error(), c.want):
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func running(t *testing.T, i *Identity) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- i.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestServing(t *testing.T) {
	s := newServer(t)
	o := options(t, s)
	i := obtained(t, o)
	running(t, i)
	get := i.ServingCertificate()
	if _, err := get(nil); err == nil || !strings.Contains(err.Error(), "no serving certificate yet") {
		t.Errorf("before it was asked for: %v", err)
	}
	if n := len(s.seen()); n != 1 {
		t.Errorf("%d requests before the addresses are known", n)
	}
	for _, ips := range [][]net.IP{{net.ParseIP("192.0.2.1")}, {net.ParseIP("192.0.2.1"), net.ParseIP("192.0.2.2")}} {
		if err := i.Serving(shortly(t, 20*time.Second), ips); err != nil {
			t.Fatal(err)
		}
		pair, err := get(nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range append([]string{"n1", "127.0.0.1"}, ips[len(ips)-1].String()) {
			if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: s.ca.pool(), DNSName: name}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	requests := s.seen()
	if last := requests[len(requests)-1].Spec; last.SignerName != certificatesv1.KubeletServingSignerName || last.Usages[1] != certificatesv1.UsageServerAuth {
		t.Errorf("asked %s for %v", last.SignerName, last.Usages)
	}
	s.mu.Lock()
	if s.peers[len(s.peers)-1].Subject.CommonName != "system:node:n1" {
		t.Error("not asked for as the node")
	}
	s.mu.Unlock()

	// A restart serves at once, before it has reached any server, and asks for nothing new.
	again := obtained(t, o)
	if pair, err := again.ServingCertificate()(nil); err != nil || len(pair.Leaf.IPAddresses) != 3 {
		t.Errorf("after a restart: %v", err)
	}
	running(t, again)
	if err := again.Serving(shortly(t, 20*time.Second), []net.IP{net.ParseIP("192.0.2.1")}); err != nil {
		t.Error(err)
	}
	if n := len(s.seen()); n != len(requests) {
		t.Errorf("%d requests more after a restart", n-len(requests))
	}
}

func TestServingEndsWithItsContext(t *testing.T) {
	s := newServer(t)
	i := obtained(t, options(t, s))
	running(t, i)
	s.set(func(s *fakeServer) { s.undecided = true })
	if err := i.Serving(shortly(t, 200*time.Millisecond), []net.IP{net.ParseIP("192.0.2.1")}); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "192.0.2.1") {
		t.Errorf("%v", err)
	}
}

func TestASpoiltServingCertificateIsReplaced(t *testing.T) {
	s := newServer(t)
	o := options(t, s)
	obtained(t, o)
	if err := os.WriteFile(o.path(servingFile), []byte("-----BEGIN"), 0o600); err != nil {
		t.Fatal(err)
	}
	i := obtained(t, o)
	running(t, i)
	if err := i.Serving(shortly(t, 20*time.Second), nil); err != nil {
		t.Error(err)
	}
}

// TestRotation lets the client certificate run out within seconds: the same client goes on with the next one.
func TestRotation(t *testing.T) {
	defer func(d time.Duration) { transport.CertCallbackRefreshDuration = d }(transport.CertCallbackRefreshDuration)
	transport.CertCallbackRefreshDuration = 50 * time.Millisecond
	s := newServer(t)
	// It is backdated by 5 minutes and renewed after 70-90 % of its life: due at once, valid for some seconds more.
	s.set(func(s *fakeServer) { s.life = 20 * time.Second })
	i := obtained(t, options(t, s))
	first := use(t, s, i)
	client := kubernetes.NewForConfigOrDie(i.Config())
	s.set(func(s *fakeServer) { s.life = time.Hour })
	running(t, i)
	deadline := time.Now().Add(20 * time.Second)
	for {
		if _, err := client.CertificatesV1().CertificateSigningRequests().List(context.Background(), metav1.ListOptions{}); err != nil && time.Now().After(deadline) {
			t.Fatal(err)
		}
		requests := s.seen()
		if len(requests) == 2 && len(requests[1].Status.Certificate) > 0 && use(t, s, i).SerialNumber.Cmp(first.SerialNumber) != 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("not renewed: %d requests", len(requests))
		}
		time.Sleep(20 * time.Millisecond)
	}
	pair, err := pairFile(i.o.path(clientFile)).Current()
	if err != nil || time.Until(pair.Leaf.NotAfter) < time.Minute {
		t.Errorf("on disk: until %v (%v)", pair.Leaf.NotAfter, err)
	}
}

func TestANodeIsNotTakenForTheServer(t *testing.T) {
	s := newServer(t)
	i := obtained(t, options(t, s))
	s.set(func(s *fakeServer) { s.leaf.Subject = subject("n2") })
	_, err := kubernetes.NewForConfigOrDie(i.Config()).CertificatesV1().CertificateSigningRequests().List(context.Background(), metav1.ListOptions{})
	if err == nil || !strings.Contains(err.Error(), "not the API server but a node") {
		t.Errorf("%v", err)
	}
}

func TestPairFileReplacesWhole(t *testing.T) {
	s := newServer(t)
	o := options(t, s)
	obtained(t, o)
	p := pairFile(o.path(clientFile))
	before, err := p.Current()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Update([]byte("x"), []byte("y")); err == nil {
		t.Error("nonsense was stored")
	}
	if after, err := p.Current(); err != nil || string(after.Certificate[0]) != string(before.Certificate[0]) {
		t.Errorf("the pair was harmed: %v", err)
	}
	if fi, err := os.Lstat(string(p)); err != nil || !fi.Mode().IsRegular() {
		t.Errorf("%v, %v", fi, err)
	}
	if _, err := tls.LoadX509KeyPair(string(p), string(p)); err != nil {
		t.Errorf("client-go cannot load it: %v", err)
	}
}
