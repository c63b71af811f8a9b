package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/apiserver"
	"github.com/everynode/everynode/internal/apiserver/pki"
	"github.com/everynode/everynode/internal/apiserver/tokens"
	"github.com/everynode/everynode/internal/cli/footprint"
	"github.com/everynode/everynode/internal/cli/layout"
	"github.com/everynode/everynode/internal/cli/systemd"
	"github.com/everynode/everynode/internal/controllers"
	"github.com/everynode/everynode/internal/controllers/daemonset"
	"github.com/everynode/everynode/internal/controllers/election"
	"github.com/everynode/everynode/internal/controllers/housekeeping/ranges"
	"github.com/everynode/everynode/internal/scheduler"
	"github.com/everynode/everynode/internal/store"
)

// Who the holder of admin.kubeconfig is: whoever is root on this machine.
const (
	adminName  = "everynode-admin"
	adminGroup = "system:masters"
)

// ledGrace is how long the controllers and the scheduler get to stop, and to release the Lease,
// before the API server does; together they stay within five seconds.
const ledGrace = time.Second

// Run is the server, from its options to the end of ctx. It stops within five seconds of that.
func Run(ctx context.Context, o Options) error {
	notifyReady := systemd.TakeNotification()
	set, err := o.settle()
	if err != nil {
		return err
	}
	unlock, err := lockDataDir(o.DataDir)
	if err != nil {
		return err
	}
	defer unlock()
	backend, err := store.Open(ctx, store.Options{
		DataDir: o.DataDir, Endpoints: o.EtcdEndpoints,
		CAFile: o.EtcdCAFile, CertFile: o.EtcdCertFile, KeyFile: o.EtcdKeyFile,
	})
	if err != nil {
		return err
	}
	defer backend.Close()
	var shared pki.KV
	if !backend.Embedded() {
		shared = pki.NewEtcdKV(backend.Client(), pki.EtcdKey)
	}
	bundle, err := pki.Ensure(ctx, filepath.Join(o.DataDir, "pki"), shared)
	if err != nil {
		return err
	}
	nodeRanges := &ranges.Ledger{}
	api, err := apiserver.New(ctx, apiserver.Options{
		DataDir: o.DataDir, Listen: o.Listen, ExtraListen: o.AlsoListen, AdvertiseIP: set.advertise,
		Store: backend, PKI: bundle, ServiceCIDR: set.serviceCIDR, ClusterCIDR: set.clusterCIDR, NodeRanges: nodeRanges, AuditLogPath: o.AuditLogPath,
	})
	if err != nil {
		return err
	}
	return (&controlPlane{options: o, settings: set, bundle: bundle, api: api, ranges: nodeRanges, notifyReady: notifyReady}).run(ctx)
}

// controlPlane is a server whose parts exist and do not run yet.
type controlPlane struct {
	options  Options
	settings *settings
	bundle   *pki.Bundle
	api      *apiserver.Server
	ranges   *ranges.Ledger
	// notifyReady tells whoever started the server that it can be used.
	notifyReady func() error
}

// run runs the parts. The first one to fail ends all; at the end the API stops after what uses it,
// so that the leader can still release its Lease.
func (c *controlPlane) run(ctx context.Context) error {
	apiCtx, stopAPI := context.WithCancel(context.WithoutCancel(ctx))
	defer stopAPI()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.api.Run(apiCtx) })
	group.Go(func() error { c.bundle.Keep(ctx); return nil })
	group.Go(func() error { defer stopAPI(); return c.afterReady(ctx) })
	return group.Wait()
}

// afterReady hands out the ways in, and does what only the leader does.
func (c *controlPlane) afterReady(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-c.api.Ready():
	}
	client, err := kubernetes.NewForConfig(c.api.ClientConfig())
	if err != nil {
		return fmt.Errorf("client of the server's own API: %w", err)
	}
	l := layout.Layout{DataDir: c.options.DataDir}
	group, ctx := errgroup.WithContext(ctx)
	token := tokens.File{Client: client, Path: l.JoinToken(), CAHash: c.bundle.CAHash()}
	group.Go(func() error { return token.Keep(ctx) })
	group.Go(func() error { return c.publishKubeconfig(ctx, l) })
	group.Go(func() error { return c.campaign(ctx, client) })
	footprint.Release(ctx)
	return group.Wait()
}

// publishKubeconfig writes the admin's kubeconfig once the join token is there: whoever waits for
// the first file to appear finds a server that can be used and joined.
func (c *controlPlane) publishKubeconfig(ctx context.Context, l layout.Layout) error {
	const patience = 2 * time.Second // the token may also be missing on purpose, when it was revoked
	for deadline := time.Now().Add(patience); time.Now().Before(deadline) && ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(l.JoinToken()); err == nil {
			break
		}
	}
	url := c.settings.url()
	if err := c.bundle.WriteKubeconfig(l.AdminKubeconfig(), url, adminName, adminGroup); err != nil {
		return err
	}
	klog.InfoS("Server ready", "url", url, "kubeconfig", l.AdminKubeconfig())
	if err := c.notifyReady(); err != nil {
		klog.ErrorS(err, "Telling systemd that the server is ready")
	}
	return nil
}

// campaign runs the controllers and the scheduler whenever this server leads.
func (c *controlPlane) campaign(ctx context.Context, client kubernetes.Interface) error {
	identity, err := election.Identity(c.options.DataDir)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		done <- election.Run(ctx, client, identity, func(term context.Context) error { return c.lead(term, ctx) })
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(ledGrace):
		klog.InfoS("Controllers did not stop in time; leaving anyway")
		return nil
	}
}

// lead is one term of leadership, on the API server's own caches: they live on, so that each
// object is in memory once.
func (c *controlPlane) lead(term, life context.Context) error {
	config := election.Fence(term, c.api.ClientConfig())
	informers, err := controllers.ShareInformers(term, life, c.api.Informers(), config)
	if err != nil {
		return err
	}
	defer informers.Shutdown()
	room := daemonset.NewRoom()
	group, ctx := errgroup.WithContext(term)
	group.Go(func() error {
		return controllers.Run(ctx, controllers.Options{
			Config: config, Informers: informers, Writer: c.api.Writer(), Ranges: c.ranges, Room: room,
			Sources: (*daemonset.Sources)(c.api.Sources()),
			CAFile:  c.bundle.CACertFile(), CAKeyFile: c.bundle.CAKeyFile(), SAKeyFile: c.bundle.ServiceAccountKeyFile(),
			ClusterCIDR: c.settings.clusterCIDR, ServiceCIDR: c.settings.serviceCIDR,
			NodeCIDRMaskSize: c.options.NodeCIDRMaskSize, NodeMonitorGracePeriod: c.options.NodeMonitorGracePeriod,
		})
	})
	group.Go(func() error {
		return scheduler.Run(ctx, scheduler.Options{Config: config, Informers: informers, Room: room})
	})
	return group.Wait()
}

// lockDataDir keeps a second server away from the data: two would campaign under one identity.
func lockDataDir(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	path := filepath.Join(dir, "server.lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("data directory %s: another everynode server uses it; stop that one, or give another --data-dir", dir)
		}
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	return func() { _ = f.Close() }, nil
}
