package store

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/storage"
	etcdfeature "k8s.io/apiserver/pkg/storage/feature"
	"k8s.io/apiserver/pkg/storage/storagebackend"
)

func open(t *testing.T, o Options) *Backend {
	t.Helper()
	b, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// refused opens what cannot be opened, and wants every one of words in the error.
func refused(t *testing.T, o Options, words ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	b, err := Open(ctx, o)
	if err == nil {
		b.Close()
		t.Fatal("opened, want an error")
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}

func eventually(t *testing.T, what string, f func(ctx context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, 20*time.Second, true, func(ctx context.Context) (bool, error) {
		last = f(ctx)
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("%s: %v", what, last)
	}
}

func TestValidate(t *testing.T) {
	for name, tc := range map[string]struct {
		o    Options
		want string
	}{
		"embedded":            {Options{DataDir: "d"}, ""},
		"nothing":             {Options{}, "data directory"},
		"TLS for embedded":    {Options{DataDir: "d", CAFile: "ca"}, "without --etcd-endpoints"},
		"external":            {Options{Endpoints: []string{"https://10.0.0.1:2379"}, CAFile: "ca", CertFile: "c", KeyFile: "k"}, ""},
		"no scheme":           {Options{Endpoints: []string{"10.0.0.1:2379"}}, "not a URL"},
		"certificate, no key": {Options{Endpoints: []string{"https://10.0.0.1:2379"}, CertFile: "c"}, "together"},
	} {
		t.Run(name, func(t *testing.T) {
			err := tc.o.Validate()
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestEmbeddedKeepsData(t *testing.T) {
	dir := t.TempDir()
	start := time.Now()
	b := open(t, Options{DataDir: dir})
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("start took %s", d)
	}
	if _, err := b.Client().Put(t.Context(), "a", "1"); err != nil {
		t.Fatal(err)
	}
	if err := b.Live(t.Context()); err != nil {
		t.Errorf("live: %v", err)
	}
	if err := b.Writable(t.Context()); err != nil {
		t.Errorf("writable: %v", err)
	}
	start = time.Now()
	b.Close()
	if d := time.Since(start); d > 4*time.Second {
		t.Errorf("stop took %s", d)
	}

	b = open(t, Options{DataDir: dir})
	r, err := b.Client().Get(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if r.Count != 1 || string(r.Kvs[0].Value) != "1" {
		t.Errorf("after a restart: %v", r.Kvs)
	}
}

func TestEmbeddedIsPrivate(t *testing.T) {
	dir := t.TempDir()
	b := open(t, Options{DataDir: dir})
	info, err := os.Stat(filepath.Join(dir, "etcd"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("etcd directory has mode %o", info.Mode().Perm())
	}
	if got := b.ServerList(); len(got) != 1 || !strings.HasPrefix(got[0], "unix:///") {
		t.Errorf("etcd listens on %v", got)
	}
	if n := len(b.embedded.etcd.Peers); n != 0 {
		t.Errorf("etcd has %d peer listeners", n)
	}
}

func TestLongDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	b := open(t, Options{DataDir: dir})
	socket := b.embedded.socketDir
	b.Close()
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("%s is left behind: %v", socket, err)
	}
}

func TestRefusals(t *testing.T) {
	t.Run("in use", func(t *testing.T) {
		dir := t.TempDir()
		open(t, Options{DataDir: dir})
		refused(t, Options{DataDir: dir}, "in use by another everynode server", fmt.Sprint(os.Getpid()), "--data-dir")
	})
	t.Run("not a directory", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, Options{DataDir: file}, "cannot write the data directory", "--data-dir")
	})
	t.Run("damaged database", func(t *testing.T) {
		dir := t.TempDir()
		open(t, Options{DataDir: dir}).Close()
		damage(t, filepath.Join(dir, "etcd", "member", "snap", "db"), 0)
		refused(t, Options{DataDir: dir}, "damaged", "backup")
	})
	t.Run("damaged log", func(t *testing.T) {
		dir := t.TempDir()
		b := open(t, Options{DataDir: dir})
		for i := range 20 {
			if _, err := b.Client().Put(t.Context(), fmt.Sprint(i), strings.Repeat("x", 1000)); err != nil {
				t.Fatal(err)
			}
		}
		b.Close()
		logs, err := filepath.Glob(filepath.Join(dir, "etcd", "member", "wal", "*.wal"))
		if err != nil || len(logs) == 0 {
			t.Fatalf("no log: %v", err)
		}
		damage(t, logs[0], 4096)
		refused(t, Options{DataDir: dir}, "damaged", "backup")
	})
	t.Run("no external etcd", func(t *testing.T) {
		refused(t, Options{Endpoints: []string{"http://127.0.0.1:1"}}, "no answer from etcd at http://127.0.0.1:1")
	})
}

// damage overwrites 8 KiB of a file.
func damage(t *testing.T, name string, offset int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(strings.Repeat("damaged ", 1024)), offset); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// Without the check, watch lists and consistent reads from the cache are silently off.
func TestFeatures(t *testing.T) {
	open(t, Options{DataDir: t.TempDir()})
	if !etcdfeature.DefaultFeatureSupportChecker.Supports(storage.RequestWatchProgress) {
		t.Error("progress requests count as unsupported")
	}
}

func TestOneCompactor(t *testing.T) {
	b := open(t, Options{DataDir: t.TempDir()})
	c := storagebackend.NewDefaultConfig("/registry", nil)
	b.Configure(c)
	if c.CompactionInterval != 0 {
		t.Error("upstream would start a second compactor")
	}
	if b.compactor == nil {
		t.Error("there is no compactor")
	}
}

func TestFull(t *testing.T) {
	const quota = 4 << 20
	b := open(t, Options{DataDir: t.TempDir(), Quota: quota})
	put := func(i int) error {
		_, err := b.Client().Put(t.Context(), fmt.Sprintf("k%03d", i), strings.Repeat("x", 256<<10))
		return err
	}
	n := 0
	for ; n < 100; n++ {
		if err := put(n); err != nil {
			break
		}
	}
	if n == 100 {
		t.Fatal("the quota was never reached")
	}
	eventually(t, "says that it is full", func(ctx context.Context) error {
		err := b.Writable(ctx)
		if err == nil {
			return fmt.Errorf("writable")
		}
		if !strings.Contains(err.Error(), "NOSPACE") {
			t.Fatalf("error %q does not say NOSPACE", err)
		}
		return nil
	})
	if err := b.Live(t.Context()); err != nil {
		t.Errorf("a full store is not live: %v", err)
	}
	if err := put(n); err == nil {
		t.Error("a full store accepted a write")
	}
	if _, err := b.Client().Delete(t.Context(), "k", clientv3.WithPrefix()); err != nil {
		t.Fatalf("a full store refused a delete: %v", err)
	}
	eventually(t, "recovers", b.Writable)
	if err := put(0); err != nil {
		t.Errorf("after recovery: %v", err)
	}
	if size := b.embedded.etcd.Server.Backend().Size(); size > quota/2 {
		t.Errorf("the database still takes %d bytes", size)
	}
}

func TestDiskNearlyFull(t *testing.T) {
	b := open(t, Options{DataDir: t.TempDir()})
	b.guard.stop() // stepped by hand from here on
	g := b.guard
	free := uint64(1 << 40)
	g.free = func() (uint64, error) { return free, nil }
	for _, s := range []struct {
		free     uint64
		writable bool
	}{
		{1 << 40, true},
		{DefaultReserve, true},
		{DefaultReserve - 1, false},
		{DefaultReserve + 1, false}, // not enough more: it would flap
		{2 * DefaultReserve, true},
	} {
		free = s.free
		if err := g.step(t.Context()); err != nil {
			t.Fatal(err)
		}
		err := b.Writable(t.Context())
		if (err == nil) != s.writable {
			t.Errorf("%d MiB free: writable says %v", s.free>>20, err)
		}
		if err != nil && !strings.Contains(err.Error(), "MiB free") {
			t.Errorf("error %q does not say how much is free", err)
		}
		if _, err := b.Client().Put(t.Context(), "k", "v"); (err == nil) != s.writable {
			t.Errorf("%d MiB free: put says %v", s.free>>20, err)
		}
	}
	b.guard = nil // it is stopped
}

// An error that etcd would end the process for becomes one that the server can report.
// TestNoHoles: the disk's blocks of the database are kept for it before they are needed.
func TestNoHoles(t *testing.T) {
	dir := t.TempDir()
	open(t, Options{DataDir: dir})
	file := filepath.Join(dir, "etcd", "member", "snap", "db")
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		t.Fatal(err)
	}
	if st.Blocks*512 < st.Size+growth {
		t.Errorf("%s: %d of %d bytes are on the disk, want them all and %d more", file, st.Blocks*512, st.Size, growth)
	}
}

func TestFatalIsReported(t *testing.T) {
	b := open(t, Options{DataDir: t.TempDir()})
	go b.embedded.etcd.Server.Logger().Fatal("failed to save raft entries")
	select {
	case <-b.Failed():
	case <-time.After(10 * time.Second):
		t.Fatal("the failure was not reported")
	}
	for _, err := range []error{b.Err(), b.Live(t.Context())} {
		if err == nil || !strings.Contains(err.Error(), "failed to save raft entries") {
			t.Errorf("got %v", err)
		}
	}
}

func TestExternal(t *testing.T) {
	endpoint := startTCP(t, transport.TLSInfo{})
	talks(t, Options{Endpoints: []string{endpoint}})
}

// An operator's etcd asks for a certificate, and is known by its own.
func TestExternalTLS(t *testing.T) {
	ca, cert, key := certificates(t)
	endpoint := startTCP(t, transport.TLSInfo{CertFile: cert, KeyFile: key, TrustedCAFile: ca, ClientCertAuth: true})
	talks(t, Options{Endpoints: []string{endpoint}, CAFile: ca, CertFile: cert, KeyFile: key})

	foreign, _, _ := certificates(t)
	refused(t, Options{Endpoints: []string{endpoint}, CAFile: foreign, CertFile: cert, KeyFile: key}, endpoint, "TLS files")
}

// talks opens a backend on an operator's etcd, and uses it in all ways.
func talks(t *testing.T, o Options) {
	t.Helper()
	endpoint := o.Endpoints[0]
	b := open(t, o)
	if _, err := b.Client().Put(t.Context(), "a", "1"); err != nil {
		t.Fatal(err)
	}
	if err := b.Live(t.Context()); err != nil {
		t.Errorf("live: %v", err)
	}
	if err := b.Writable(t.Context()); err != nil {
		t.Errorf("writable: %v", err)
	}
	c := storagebackend.NewDefaultConfig("/registry", nil)
	b.Configure(c)
	if len(c.Transport.ServerList) != 1 || c.Transport.ServerList[0] != endpoint || c.CompactionInterval == 0 {
		t.Errorf("storage configuration: %+v, compaction %s", c.Transport, c.CompactionInterval)
	}
}

// startTCP runs an etcd like an operator's, on a free port, and returns its URL.
func startTCP(t *testing.T, tls transport.TLSInfo) string {
	t.Helper()
	scheme := "http"
	if !tls.Empty() {
		scheme = "https"
	}
	c := embed.NewConfig()
	c.Dir = t.TempDir()
	c.LogLevel = "error"
	c.ClientTLSInfo = tls
	c.ListenClientUrls = []url.URL{{Scheme: scheme, Host: "127.0.0.1:0"}}
	c.ListenPeerUrls = nil
	e, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	<-e.Server.ReadyNotify()
	return scheme + "://" + e.Clients[0].Addr().String()
}

// certificates are files of a new authority and of a certificate for both sides of a connection to
// this machine.
func certificates(t *testing.T) (ca, cert, key string) {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(t.TempDir(), name)
		must(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return path
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	root, err := x509.CreateCertificate(rand.Reader, authority, authority, private.Public(), private)
	must(err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "etcd"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	signed, err := x509.CreateCertificate(rand.Reader, leaf, authority, private.Public(), private)
	must(err)
	secret, err := x509.MarshalECPrivateKey(private)
	must(err)
	return write("ca.crt", "CERTIFICATE", root), write("tls.crt", "CERTIFICATE", signed), write("tls.key", "EC PRIVATE KEY", secret)
}
