package pki

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/atomicfile"
	"github.com/everynode/everynode/internal/jointoken"
)

const (
	caCert = "ca.crt"
	caKey  = "ca.key"
	saKey  = "sa.key"
)

// Bundle is the server's PKI on disk. It is safe for concurrent use.
type Bundle struct {
	// Dir holds every file of the bundle.
	Dir string

	keys *keys
	now  func() time.Time

	mu    sync.Mutex
	renew map[string]func() error // path of a leaf or kubeconfig handed out → how to renew it
}

// Ensure reads the bundle in dir, or makes it. With shared, what is stored there wins over nothing, and must be the
// same as what is in dir otherwise; shared nil means that this server is the only one.
func Ensure(ctx context.Context, dir string, shared KV) (*Bundle, error) {
	if err := atomicfile.Dir(dir); err != nil {
		return nil, fmt.Errorf("prepare the PKI directory: %w", err)
	}
	if err := atomicfile.Sweep(dir); err != nil {
		return nil, fmt.Errorf("clean the PKI directory %s: %w", dir, err)
	}
	b := &Bundle{Dir: dir, now: time.Now, renew: map[string]func() error{}}
	k, err := b.load()
	if err != nil {
		return nil, err
	}
	if b.keys, err = b.settle(ctx, k, shared); err != nil {
		return nil, err
	}
	return b, b.checkLife()
}

// settle completes local keys (nil: there are none) with the shared ones, and sees to it that both places hold them.
func (b *Bundle) settle(ctx context.Context, local *keys, shared KV) (*keys, error) {
	offer := local
	if shared != nil {
		published, err := shared.Get(ctx)
		if err != nil {
			return nil, fmt.Errorf("read the cluster's CA from etcd: %w", err)
		}
		if offer == nil && published != nil {
			return b.adopt(published)
		}
	}
	var err error
	if offer == nil {
		if offer, err = generate(b.now()); err != nil {
			return nil, err
		}
	}
	if shared == nil {
		if local != nil {
			return local, nil
		}
		return offer, b.save(offer)
	}
	winner, err := shared.PutIfAbsent(ctx, offer.marshal())
	if err != nil {
		return nil, fmt.Errorf("publish the CA to etcd: %w", err)
	}
	if local == nil {
		return b.adopt(winner)
	}
	return local, b.compare(local, winner)
}

// adopt makes the published keys this server's own.
func (b *Bundle) adopt(published []byte) (*keys, error) {
	k, err := unmarshal(published)
	if err != nil {
		return nil, fmt.Errorf("the cluster's CA in etcd is unusable: %w", err)
	}
	return k, b.save(k)
}

// compare refuses to serve one etcd with two CAs: agents and tokens of one server would be strangers to the other.
func (b *Bundle) compare(local *keys, published []byte) error {
	k, err := unmarshal(published)
	if err != nil {
		return fmt.Errorf("the cluster's CA in etcd is unusable: %w", err)
	}
	if string(k.marshal()) == string(local.marshal()) {
		return nil
	}
	what := fmt.Sprintf("CA (sha256 %s) is not the one in etcd (sha256 %s)", jointoken.HashDER(local.cert.Raw), jointoken.HashDER(k.cert.Raw))
	if local.cert.Equal(k.cert) {
		what = "service account key is not the one in etcd"
	}
	return fmt.Errorf("the %s in %s: this data directory belongs to another cluster; start with the right etcd endpoints or another data directory, "+
		"or move %s away to take over the cluster's keys", what, b.Dir, b.Dir)
}

// load reads the three files of the set: nil if it was never completed.
func (b *Bundle) load() (*keys, error) {
	content := map[string][]byte{}
	for _, name := range []string{caCert, caKey, saKey} {
		data, err := os.ReadFile(b.path(name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, fmt.Errorf("read the PKI: %w: run the server as the user that owns %s", err, b.Dir)
		}
		if err := atomicfile.Restrict(b.path(name)); err != nil {
			return nil, fmt.Errorf("close %s to other users: %w", b.path(name), err)
		}
		content[name] = data
	}
	if content[caCert] == nil {
		return nil, b.checkUnused()
	}
	for _, name := range []string{caKey, saKey} {
		if content[name] == nil {
			return nil, fmt.Errorf("%s is missing but %s is there: restore it from a backup; or remove %s to start with a new CA, and let every node join again",
				b.path(name), b.path(caCert), b.Dir)
		}
	}
	k, file, err := parse(content[caCert], content[caKey], content[saKey])
	if err != nil {
		return nil, fmt.Errorf("%s is unusable: %w: restore it from a backup; or remove %s to start with a new CA, and let every node join again", b.path(file), err, b.Dir)
	}
	return k, nil
}

// checkUnused tells a first start (or one that was cut off) from a lost CA: leaves are only made under a whole set.
func (b *Bundle) checkUnused() error {
	leaves, err := filepath.Glob(b.path("*.pem"))
	if err != nil || len(leaves) == 0 {
		return err
	}
	return fmt.Errorf("%s is missing, but %s was issued under it: restore it from a backup or from an agent's pki/ca.crt; or remove %s to start with a new CA, and let every node join again",
		b.path(caCert), leaves[0], b.Dir)
}

// save writes the set, ca.crt last.
func (b *Bundle) save(k *keys) error {
	for _, f := range []struct {
		name    string
		content []byte
	}{{caKey, k.keyPEM}, {saKey, k.saPEM}, {caCert, k.certPEM}} {
		if err := atomicfile.Write(b.path(f.name), f.content); err != nil {
			return fmt.Errorf("save the PKI: %w", err)
		}
	}
	return nil
}

// checkLife refuses a CA under which nothing can be issued any more.
func (b *Bundle) checkLife() error {
	now, c := b.now(), b.keys.cert
	switch {
	case now.After(c.NotAfter):
		return fmt.Errorf("the CA in %s expired on %s: remove %s to start with a new one, and let every node join again",
			b.path(caCert), c.NotAfter.Format(time.DateOnly), b.Dir)
	case now.Before(c.NotBefore):
		return fmt.Errorf("the CA in %s is valid from %s, but this machine's clock says %s: set the clock, then start again",
			b.path(caCert), c.NotBefore.Format(time.RFC3339), now.Format(time.RFC3339))
	}
	return nil
}

// Keep renews the leaves and kubeconfigs handed out so far before they run out, until ctx ends. Servers reload their
// files (k8s.io/apiserver's dynamic certificates do); nothing else has to be told.
func (b *Bundle) Keep(ctx context.Context) {
	tick := time.NewTicker(6 * time.Hour)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for path, renew := range b.renewals() {
			if err := renew(); err != nil {
				klog.FromContext(ctx).Error(err, "certificate not renewed; will try again", "file", path)
			}
		}
	}
}

func (b *Bundle) renewals() map[string]func() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make(map[string]func() error, len(b.renew))
	for path, renew := range b.renew {
		all[path] = renew
	}
	return all
}

func (b *Bundle) keep(path string, renew func() error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.renew[path] = renew
}

// CACertFile is the PEM file with the CA's certificate, and nothing else.
func (b *Bundle) CACertFile() string { return b.path(caCert) }

// CAKeyFile is the PEM file with the CA's private key.
func (b *Bundle) CAKeyFile() string { return b.path(caKey) }

// ServiceAccountKeyFile is the PEM file with the private key that signs service account tokens; its public half
// verifies them.
func (b *Bundle) ServiceAccountKeyFile() string { return b.path(saKey) }

// CACert is the CA's certificate as PEM.
func (b *Bundle) CACert() []byte { return append([]byte(nil), b.keys.certPEM...) }

// CAHash is the hex sha256 of the CA certificate's DER: what a join token pins.
func (b *Bundle) CAHash() string { return jointoken.HashDER(b.keys.cert.Raw) }

func (b *Bundle) path(name string) string { return filepath.Join(b.Dir, name) }

func (b *Bundle) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(b.keys.cert)
	return pool
}
