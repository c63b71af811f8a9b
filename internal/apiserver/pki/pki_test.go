package pki

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/keyutil"

	"github.com/everynode/everynode/internal/jointoken"
	"github.com/everynode/everynode/internal/store"
)

func ensure(t *testing.T, dir string, shared KV) *Bundle {
	t.Helper()
	b, err := Ensure(context.Background(), dir, shared)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestEnsureMakesAPrivateSetOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	b := ensure(t, dir, nil)
	before := map[string]string{}
	for _, file := range []string{b.CACertFile(), b.CAKeyFile(), b.ServiceAccountKeyFile()} {
		before[file] = read(t, file)
	}
	if err := os.Chmod(b.CAKeyFile(), 0o644); err != nil {
		t.Fatal(err)
	}
	again := ensure(t, dir, nil)
	for file, content := range before {
		if read(t, file) != content {
			t.Errorf("%s was made anew", file)
		}
	}
	if again.CAHash() != b.CAHash() {
		t.Error("another CA")
	}
	if hash, err := jointoken.HashCA([]byte(before[b.CACertFile()])); err != nil || hash != b.CAHash() {
		t.Errorf("the hash of ca.crt is %s (%v), not %s", hash, err, b.CAHash())
	}
	if strings.Contains(before[b.CACertFile()], "PRIVATE") {
		t.Error("ca.crt is published: it must not hold a key")
	}
	assertPrivate(t, dir)
}

func assertPrivate(t *testing.T, dir string) {
	t.Helper()
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err == nil && fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, fi.Mode())
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func TestCALivesTenYearsAndSignsLeavesOnly(t *testing.T) {
	b := ensure(t, t.TempDir(), nil)
	c := b.keys.cert
	if years := time.Until(c.NotAfter).Hours() / 24 / 365; years < 9.9 || years > 10 {
		t.Errorf("it lives %.2f years", years)
	}
	if !c.IsCA || !c.MaxPathLenZero {
		t.Error("it is no CA, or may sign other CAs")
	}
	for _, file := range []string{b.CAKeyFile(), b.ServiceAccountKeyFile()} {
		if _, err := keyutil.PrivateKeyFromFile(file); err != nil {
			t.Errorf("upstream cannot read %s: %v", file, err)
		}
	}
}

// TestEveryCrashPoint cuts the first start off after each of its writes: the next start completes the set.
func TestEveryCrashPoint(t *testing.T) {
	whole := t.TempDir()
	b := ensure(t, whole, nil)
	order := []string{b.CAKeyFile(), b.ServiceAccountKeyFile(), b.CACertFile()}
	for n := range len(order) + 1 {
		dir := t.TempDir()
		for _, file := range order[:n] {
			if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), []byte(read(t, file)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		// A write that was cut off leaves a temporary file.
		if err := os.WriteFile(filepath.Join(dir, ".ca.crt.tmp-1"), []byte("-----BEGIN"), 0o600); err != nil {
			t.Fatal(err)
		}
		got := ensure(t, dir, nil)
		if _, _, err := got.Serving([]string{"localhost"}, nil); err != nil {
			t.Errorf("after %d files: %v", n, err)
		}
		if n == len(order) && got.CAHash() != b.CAHash() {
			t.Error("a complete set was replaced")
		}
		if _, err := os.Stat(filepath.Join(dir, ".ca.crt.tmp-1")); err == nil {
			t.Errorf("after %d files: the temporary file stays", n)
		}
	}
}

// TestSaveWritesTheCertificateLast is what TestEveryCrashPoint rests on.
func TestSaveWritesTheCertificateLast(t *testing.T) {
	dir := t.TempDir()
	b := &Bundle{Dir: dir, now: time.Now}
	k, err := generate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, saKey, "x"), 0o700); err != nil { // makes this write fail
		t.Fatal(err)
	}
	if err := b.save(k); err == nil {
		t.Fatal("it was saved")
	}
	if _, err := os.Stat(b.CACertFile()); !errors.Is(err, fs.ErrNotExist) {
		t.Error("ca.crt is there before sa.key")
	}
}

func TestEnsureSaysWhichFileIsWrongAndWhatToDo(t *testing.T) {
	other := ensure(t, t.TempDir(), nil)
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, b *Bundle)
		file  string
		want  string
	}{
		{"lost CA key", func(t *testing.T, b *Bundle) { remove(t, b.CAKeyFile()) }, caKey, "missing"},
		{"lost service account key", func(t *testing.T, b *Bundle) { remove(t, b.ServiceAccountKeyFile()) }, saKey, "missing"},
		{"lost CA", func(t *testing.T, b *Bundle) {
			if _, _, err := b.Client("kubelet", "x"); err != nil {
				t.Fatal(err)
			}
			remove(t, b.CACertFile())
		}, caCert, "missing"},
		{"CA cut off", func(t *testing.T, b *Bundle) { write(t, b.CACertFile(), "-----BEGIN CERTIFICATE-----") }, caCert, "no PEM certificate"},
		{"leaf for a CA", func(t *testing.T, b *Bundle) {
			file, _, err := b.Client("kubelet", "x")
			if err != nil {
				t.Fatal(err)
			}
			write(t, b.CACertFile(), read(t, file))
		}, caCert, "not a CA"},
		{"CA key cut off", func(t *testing.T, b *Bundle) { write(t, b.CAKeyFile(), "") }, caKey, "no PEM private key"},
		{"other CA's key", func(t *testing.T, b *Bundle) { write(t, b.CAKeyFile(), read(t, other.CAKeyFile())) }, caKey, "not the key of ca.crt"},
		{"service account key cut off", func(t *testing.T, b *Bundle) { write(t, b.ServiceAccountKeyFile(), "x") }, saKey, "no PEM private key"},
		{"CA not readable", func(t *testing.T, b *Bundle) {
			remove(t, b.CACertFile())
			if err := os.Mkdir(b.CACertFile(), 0o700); err != nil {
				t.Fatal(err)
			}
		}, caCert, "read the PKI"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			c.spoil(t, ensure(t, dir, nil))
			_, err := Ensure(context.Background(), dir, nil)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range []string{filepath.Join(dir, c.file), c.want} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v: does not mention %q", err, want)
				}
			}
		})
	}
}

func TestEnsureRefusesACAOutsideItsLife(t *testing.T) {
	for want, shift := range map[string]time.Duration{"expired": -caLife - time.Hour, "set the clock": time.Hour} {
		dir := t.TempDir()
		k, err := generate(time.Now().Add(shift))
		if err != nil {
			t.Fatal(err)
		}
		if err := (&Bundle{Dir: dir}).save(k); err != nil {
			t.Fatal(err)
		}
		if _, err := Ensure(context.Background(), dir, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestServing(t *testing.T) {
	b := ensure(t, t.TempDir(), nil)
	hosts, ips := []string{"kubernetes", "localhost"}, []net.IP{net.IPv4(127, 0, 0, 1), net.ParseIP("10.43.0.1")}
	certFile, keyFile, err := b.Serving(hosts, ips)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(pair.Certificate); n != 2 || jointoken.HashDER(pair.Certificate[1]) != b.CAHash() {
		t.Fatalf("the chain has %d certificates, and does not end with the CA: agents cannot pin it", n)
	}
	for _, name := range []string{"kubernetes", "localhost", "127.0.0.1", "10.43.0.1"} {
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: b.roots(), DNSName: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: b.roots(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err == nil {
		t.Error("it is good for clients too")
	}
	assertPrivate(t, b.Dir)
}

func TestLeafIsIssuedAnewOnlyWhenItMust(t *testing.T) {
	type request struct {
		hosts []string
		ips   []net.IP
	}
	start := request{[]string{"a", "b"}, []net.IP{net.IPv4(10, 0, 0, 1)}}
	for _, c := range []struct {
		name   string
		then   request
		after  time.Duration
		spoil  string
		change bool
	}{
		{name: "nothing changed", then: start},
		{name: "other order, twice", then: request{[]string{"b", "a", "a"}, []net.IP{net.ParseIP("10.0.0.1")}}},
		{name: "a third left", then: start, after: leafLife*2/3 - time.Hour},
		{name: "less than a third left", then: start, after: leafLife*2/3 + time.Hour, change: true},
		{name: "name more", then: request{[]string{"a", "b", "c"}, start.ips}, change: true},
		{name: "name less", then: request{[]string{"a"}, start.ips}, change: true},
		{name: "other address", then: request{start.hosts, []net.IP{net.IPv4(10, 0, 0, 2)}}, change: true},
		{name: "file cut off", then: start, spoil: "-----BEGIN EC", change: true},
		{name: "clock set back", then: start, after: -time.Hour, change: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := ensure(t, t.TempDir(), nil)
			file, _, err := b.Serving(start.hosts, start.ips)
			if err != nil {
				t.Fatal(err)
			}
			before := read(t, file)
			if c.spoil != "" {
				write(t, file, c.spoil)
			}
			b.now = func() time.Time { return time.Now().Add(c.after) }
			if _, _, err := b.Serving(c.then.hosts, c.then.ips); err != nil {
				t.Fatal(err)
			}
			if changed := read(t, file) != before; changed != c.change {
				t.Errorf("changed: %v, want %v", changed, c.change)
			}
		})
	}
}

func TestLeafOfAnotherCAIsReplaced(t *testing.T) {
	b, other := ensure(t, t.TempDir(), nil), ensure(t, t.TempDir(), nil)
	theirs, _, err := other.Client("kubelet", "kube-apiserver-kubelet-client", "everynode:kubelet-admins")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(b.Dir, filepath.Base(theirs)), read(t, theirs))
	ours, _, err := b.Client("kubelet", "kube-apiserver-kubelet-client", "everynode:kubelet-admins")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(ours, ours)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: b.roots(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	if s := pair.Leaf.Subject; s.CommonName != "kube-apiserver-kubelet-client" || len(s.Organization) != 1 || s.Organization[0] != "everynode:kubelet-admins" {
		t.Errorf("subject %v", s)
	}
}

func TestLeafEndsWithItsCA(t *testing.T) {
	b := ensure(t, t.TempDir(), nil)
	b.now = func() time.Time { return b.keys.cert.NotAfter.Add(-time.Hour) }
	file, _, err := b.Serving([]string{"a"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := parseCert([]byte(read(t, file)))
	if err != nil || c.NotAfter.After(b.keys.cert.NotAfter) {
		t.Errorf("it ends %v, the CA %v (%v)", c.NotAfter, b.keys.cert.NotAfter, err)
	}
}

func TestKubeconfig(t *testing.T) {
	b := ensure(t, t.TempDir(), nil)
	path := filepath.Join(t.TempDir(), "admin.kubeconfig")
	put := func(url string) string {
		t.Helper()
		if err := b.WriteKubeconfig(path, url, "everynode:admin", "system:masters"); err != nil {
			t.Fatal(err)
		}
		return read(t, path)
	}
	first := put("https://127.0.0.1:6443")
	if put("https://127.0.0.1:6443") != first {
		t.Error("a kubeconfig that is right was written anew")
	}
	second := put("https://127.0.0.1:7443")
	if second == first {
		t.Error("the new port is not in it")
	}
	b.now = func() time.Time { return time.Now().Add(leafLife * 3 / 4) }
	if put("https://127.0.0.1:7443") == second {
		t.Error("its certificate runs out, and was not renewed")
	}
	c, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(c.CertData, c.KeyData)
	if err != nil || pair.Leaf.Subject.String() != "CN=everynode:admin,O=system:masters" {
		t.Errorf("certificate of %v (%v)", pair.Leaf.Subject, err)
	}
	if hash, _ := jointoken.HashCA(c.CAData); hash != b.CAHash() {
		t.Error("another CA is in it")
	}
	assertPrivate(t, path)
}

func TestKubeconfigDoesNotOverwriteWhatItIsNot(t *testing.T) {
	b := ensure(t, t.TempDir(), nil)
	path := filepath.Join(t.TempDir(), "notes")
	write(t, path, "my notes: [")
	if err := b.WriteKubeconfig(path, "https://x:1", "a"); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("%v, want an error about %s", err, path)
	}
	if read(t, path) != "my notes: [" {
		t.Error("the file was overwritten")
	}
}

func TestRenewalsCoverEverythingHandedOut(t *testing.T) {
	b := ensure(t, t.TempDir(), nil)
	serving, _, err := b.Serving([]string{"a"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	client, _, err := b.Client("c", "c")
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(b.Dir, "k")
	if err := b.WriteKubeconfig(config, "https://x:1", "a"); err != nil {
		t.Fatal(err)
	}
	b.now = func() time.Time { return time.Now().Add(leafLife * 3 / 4) }
	for _, path := range []string{serving, client, config} {
		before := read(t, path)
		if renew := b.renewals()[path]; renew == nil || renew() != nil || read(t, path) == before {
			t.Errorf("%s was not renewed", path)
		}
	}
}

func TestBadRequests(t *testing.T) {
	b := ensure(t, t.TempDir(), nil)
	if _, _, err := b.Serving(nil, nil); err == nil {
		t.Error("a serving certificate for nobody")
	}
	for _, name := range []string{"", "../x", "A", "a.b"} {
		if _, _, err := b.Client(name, "x"); err == nil {
			t.Errorf("a file named %q", name)
		}
	}
}

// memory is a KV whose first few accesses can be made to fail.
type memory struct {
	mu    sync.Mutex
	value []byte
	fail  error
}

func (m *memory) Get(context.Context) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.value, m.fail
}

func (m *memory) PutIfAbsent(_ context.Context, value []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.value == nil {
		m.value = value
	}
	return m.value, m.fail
}

func TestServersOfOneEtcdShareTheirKeys(t *testing.T) {
	shared := &memory{}
	dirs := []string{t.TempDir(), t.TempDir(), t.TempDir(), t.TempDir()}
	var wg sync.WaitGroup
	bundles := make([]*Bundle, len(dirs))
	for i, dir := range dirs {
		wg.Go(func() {
			var err error
			if bundles[i], err = Ensure(context.Background(), dir, shared); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	for _, b := range bundles {
		for _, file := range []string{caCert, caKey, saKey} {
			if read(t, b.path(file)) != read(t, bundles[0].path(file)) {
				t.Errorf("%s differs", b.path(file))
			}
		}
	}
	ensure(t, dirs[1], shared) // a restart
}

func TestAStandAloneServerCanStartToShare(t *testing.T) {
	dir, shared := t.TempDir(), &memory{}
	b := ensure(t, dir, nil)
	ensure(t, dir, shared)
	if ensure(t, t.TempDir(), shared).CAHash() != b.CAHash() {
		t.Error("the second server has another CA")
	}
}

func TestTwoClustersDoNotMix(t *testing.T) {
	shared, dir := &memory{}, t.TempDir()
	ensure(t, t.TempDir(), shared)
	own := ensure(t, dir, nil)
	_, err := Ensure(context.Background(), dir, shared)
	if err == nil || !strings.Contains(err.Error(), "another cluster") || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), own.CAHash()) {
		t.Errorf("%v", err)
	}
}

func TestSharedTrouble(t *testing.T) {
	boom := errors.New("boom")
	if _, err := Ensure(context.Background(), t.TempDir(), &memory{fail: boom}); !errors.Is(err, boom) {
		t.Errorf("%v", err)
	}
	for _, value := range []string{"x", read(t, ensure(t, t.TempDir(), nil).CACertFile())} {
		dir := t.TempDir()
		if _, err := Ensure(context.Background(), dir, &memory{value: []byte(value)}); err == nil || !strings.Contains(err.Error(), "etcd") {
			t.Errorf("%v", err)
		}
		if entries, _ := os.ReadDir(dir); len(entries) != 0 {
			t.Errorf("an unusable CA was adopted: %v", entries)
		}
	}
}

func TestEtcdKV(t *testing.T) {
	ctx := context.Background()
	backend, err := store.Open(ctx, store.Options{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	kv := NewEtcdKV(backend.Client(), EtcdKey)
	if value, err := kv.Get(ctx); err != nil || value != nil {
		t.Errorf("before: %q, %v", value, err)
	}
	for _, offer := range []string{"first", "second"} {
		if value, err := kv.PutIfAbsent(ctx, []byte(offer)); err != nil || string(value) != "first" {
			t.Errorf("%s put: %q, %v", offer, value, err)
		}
	}
	if value, err := kv.Get(ctx); err != nil || string(value) != "first" {
		t.Errorf("after: %q, %v", value, err)
	}
}
