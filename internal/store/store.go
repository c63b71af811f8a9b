// Package store is the one place that knows where the cluster's data lives: in an etcd embedded in this process
// (the default, one file tree under the data directory), or in an etcd cluster that somebody else runs.
//
// It opens that etcd with errors a person can act on, hands the API server a storage decorator that talks to the
// embedded etcd by function calls instead of a socket, keeps the one compactor, and reports the store's health.
// It is called by the API server and the command line. It knows nothing about Kubernetes objects.
package store

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/apiserver/pkg/storage/etcd3"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/utils/clock"
)

const (
	// DefaultQuota bounds the embedded database's file. etcd's own advice is to stay below 8 GiB.
	DefaultQuota int64 = 8 << 30
	// DefaultReserve is the free disk space below which an embedded store refuses writes: a write-ahead log that
	// cannot be extended would otherwise end the process.
	DefaultReserve uint64 = 128 << 20

	startTimeout   = 60 * time.Second
	stopTimeout    = 3 * time.Second
	dialTimeout    = 10 * time.Second
	compactionAge  = 5 * time.Minute
	keepaliveTime  = 30 * time.Second
	keepaliveLimit = 10 * time.Second
)

// Options says where the data is. With no Endpoints, an etcd is embedded and its files are under DataDir/etcd.
type Options struct {
	// DataDir is the server's data directory. Required for an embedded store; unused otherwise.
	DataDir string
	// Endpoints of an external etcd cluster, as URLs. Empty: embed one.
	Endpoints []string
	// CAFile, CertFile and KeyFile are PEM files for the connection to Endpoints.
	CAFile, CertFile, KeyFile string

	// Quota is the size in bytes the embedded database may reach; 0 means DefaultQuota.
	Quota int64
	// Reserve is the free disk space in bytes below which the embedded store refuses writes; 0 means DefaultReserve.
	Reserve uint64
}

// Validate reports the first thing wrong with the options.
func (o *Options) Validate() error {
	if len(o.Endpoints) == 0 {
		if o.DataDir == "" {
			return errors.New("store: a data directory is needed for the embedded etcd (or name an external one with --etcd-endpoints)")
		}
		if o.CAFile != "" || o.CertFile != "" || o.KeyFile != "" {
			return errors.New("store: etcd TLS files were given without --etcd-endpoints; the embedded etcd needs none")
		}
		return nil
	}
	for _, e := range o.Endpoints {
		u, err := url.Parse(e)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return fmt.Errorf("store: etcd endpoint %q is not a URL like https://10.0.0.1:2379", e)
		}
	}
	if (o.CertFile == "") != (o.KeyFile == "") {
		return errors.New("store: an etcd client certificate and its key must be given together")
	}
	return nil
}

// Backend is an open store. Its methods may be called from any goroutine.
type Backend struct {
	options  Options
	client   *clientv3.Client
	servers  []string
	embedded *embedded // nil with an external etcd

	compactor interface {
		etcd3.Compactor
		Stop()
	}
	guard     *guard
	closeOnce sync.Once
}

// Open starts or connects to the store and waits until it answers. The caller closes it.
func Open(ctx context.Context, o Options) (*Backend, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	quietGRPC()
	if len(o.Endpoints) > 0 {
		return openExternal(ctx, o)
	}
	return openEmbedded(ctx, o)
}

func openEmbedded(ctx context.Context, o Options) (*Backend, error) {
	if o.Quota == 0 {
		o.Quota = DefaultQuota
	}
	if o.Reserve == 0 {
		o.Reserve = DefaultReserve
	}
	e, err := startEmbedded(ctx, filepath.Join(o.DataDir, "etcd"), o.Quota, o.Reserve)
	if err != nil {
		return nil, err
	}
	b := &Backend{options: o, client: e.client, servers: []string{e.clientURL()}, embedded: e}
	if err := checkFeatures(ctx, b.servers[0]); err != nil {
		b.Close()
		return nil, err
	}
	b.compactor = etcd3.NewCompactor(e.client, compactionAge, clock.RealClock{}, nil)
	b.guard = startGuard(e, o.Quota, o.Reserve)
	return b, nil
}

// Client talks to the store: in process for an embedded one, over the network otherwise.
func (b *Backend) Client() *clientv3.Client { return b.client }

// ServerList names the addresses on which etcd can be dialled: a unix socket for an embedded one.
func (b *Backend) ServerList() []string { return b.servers }

// Embedded reports whether the etcd runs in this process.
func (b *Backend) Embedded() bool { return b.embedded != nil }

// Failed is closed when an embedded etcd has stopped for good, for example because its disk failed. The server must
// then end; Err says why. It is never closed for an external etcd, which may come back.
func (b *Backend) Failed() <-chan struct{} {
	if b.embedded == nil {
		return nil
	}
	return b.embedded.log.failed
}

// Err says why the store has failed, or nil.
func (b *Backend) Err() error {
	if b.embedded == nil {
		return nil
	}
	return b.embedded.log.err()
}

// Configure fills the connection part of an upstream storage configuration, for the few upstream parts that insist on
// dialling etcd themselves (service address allocators, the servers' own leases).
func (b *Backend) Configure(c *storagebackend.Config) {
	c.Transport.ServerList = b.servers
	c.Transport.TrustedCAFile = b.options.CAFile
	c.Transport.CertFile = b.options.CertFile
	c.Transport.KeyFile = b.options.KeyFile
	if b.Embedded() {
		// Exactly one compactor may run for one etcd, or each would think the other's work its own: ours does.
		c.CompactionInterval = 0
		c.DBMetricPollInterval = 0 // Observe costs nothing
	}
}

// Close stops the store. It takes at most about three seconds.
func (b *Backend) Close() {
	b.closeOnce.Do(func() {
		if b.guard != nil {
			b.guard.stop()
		}
		if b.compactor != nil {
			b.compactor.Stop()
		}
		if b.embedded != nil {
			b.embedded.close()
			return
		}
		_ = b.client.Close()
	})
}
