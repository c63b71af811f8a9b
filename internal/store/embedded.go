package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// maxSocketPath is the longest path a unix socket address can hold on Linux, less the final zero.
const maxSocketPath = 107

// embedded is an etcd of one member inside this process. It listens on a unix socket only, which nobody but this
// user can reach.
type embedded struct {
	dir       string
	socketDir string // dir, or a short temporary one when dir is too long for a socket's name
	lock      *os.File
	etcd      *embed.Etcd
	client    *clientv3.Client
	log       *etcdLog
}

func (e *embedded) clientURL() string { return "unix://" + filepath.Join(e.socketDir, "client.sock") }

func startEmbedded(ctx context.Context, dir string, quota int64, reserve uint64) (_ *embedded, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, dirError(dir, err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, dirError(dir, err)
	}
	e := &embedded{dir: dir, log: newEtcdLog()}
	defer func() {
		if err != nil {
			e.release()
		}
	}()
	if e.lock, err = lockDir(dir); err != nil {
		return nil, err
	}
	if err := checkSpace(dir, reserve); err != nil {
		return nil, err
	}
	if err := checkDatabase(filepath.Join(dir, "member", "snap", "db")); err != nil {
		return nil, err
	}
	if e.socketDir, err = socketDir(dir); err != nil {
		return nil, err
	}
	if err := e.start(ctx, quota); err != nil {
		return nil, err
	}
	e.client = v3client.New(e.etcd.Server)
	return e, nil
}

// start runs etcd and waits until it serves. etcd ends its goroutine, or the process, on many errors; the log hook
// turns those into an error here.
func (e *embedded) start(ctx context.Context, quota int64) error {
	type result struct {
		etcd *embed.Etcd
		err  error
	}
	started := make(chan result, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				started <- result{err: fmt.Errorf("%v", p)}
			}
		}()
		et, err := embed.StartEtcd(e.config(quota))
		started <- result{et, err}
	}()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	select {
	case r := <-started:
		if r.err != nil {
			return startError(e.dir, r.err)
		}
		e.etcd = r.etcd
	case <-e.log.failed:
		return startError(e.dir, e.log.err())
	case <-ctx.Done():
		return startError(e.dir, fmt.Errorf("not started in time: %w", context.Cause(ctx)))
	}
	select {
	case <-e.etcd.Server.ReadyNotify():
		return nil
	case <-e.log.failed:
		return startError(e.dir, e.log.err())
	case <-ctx.Done():
		return startError(e.dir, fmt.Errorf("not ready in time: %w", context.Cause(ctx)))
	}
}

func (e *embedded) config(quota int64) *embed.Config {
	c := embed.NewConfig()
	c.Name = "default"
	c.Dir = e.dir
	c.ListenClientUrls = []url.URL{{Scheme: "unix", Path: filepath.Join(e.socketDir, "client.sock")}}
	// Advertised addresses must look like host:port; with one member nobody ever dials them.
	c.AdvertiseClientUrls = []url.URL{{Scheme: "http", Host: "localhost:0"}}
	c.ListenPeerUrls = nil
	c.AdvertisePeerUrls = []url.URL{{Scheme: "http", Host: "localhost:0"}}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.EnableGRPCGateway = false
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(e.log.zap())
	c.QuotaBackendBytes = quota
	// Raft keeps this many entries in memory for members that lag; there are none.
	c.SnapshotCount = 2000
	c.SnapshotCatchUpEntries = 100
	c.MaxSnapFiles, c.MaxWalFiles = 2, 2
	c.WatchProgressNotifyInterval = 5 * time.Second
	return c
}

func (e *embedded) close() {
	e.log.closed.Store(true)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = e.client.Close()
		e.etcd.Close()
	}()
	select {
	case <-done:
	case <-time.After(stopTimeout):
		klog.InfoS("The embedded etcd did not stop in time; its data is safe in the write-ahead log", "dir", e.dir)
	}
	e.release()
}

func (e *embedded) release() {
	if e.socketDir != "" && e.socketDir != e.dir {
		_ = os.RemoveAll(e.socketDir)
	}
	if e.lock != nil {
		_ = e.lock.Close()
	}
}

// lockDir makes sure that no other server uses the directory. etcd itself would wait for it without a word.
func lockDir(dir string) (*os.File, error) {
	name := filepath.Join(dir, "lock")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, dirError(dir, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(name)
		_ = f.Close()
		return nil, fmt.Errorf("store: %s is in use by another everynode server (pid %s): stop it first, or use another --data-dir",
			dir, strings.TrimSpace(string(holder)))
	}
	_ = f.Truncate(0)
	_, _ = fmt.Fprintf(f, "%d\n", os.Getpid())
	return f, nil
}

// checkDatabase opens the database file for reading, because etcd ends the process on a file it does not understand.
func checkDatabase(name string) error {
	if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	db, err := bbolt.Open(name, 0o600, &bbolt.Options{ReadOnly: true, PreLoadFreelist: true, Timeout: time.Second})
	if err != nil {
		return fmt.Errorf("store: the database %s is damaged (%w): restore the etcd directory from a backup, or move it away to start empty", name, err)
	}
	return db.Close()
}

func socketDir(dir string) (string, error) {
	if len(filepath.Join(dir, "client.sock")) <= maxSocketPath {
		return dir, nil
	}
	short, err := os.MkdirTemp("", "everynode-etcd-")
	if err != nil {
		return "", fmt.Errorf("store: %s is too long for a socket's name and no short directory can be made: %w", dir, err)
	}
	return short, nil
}

func dirError(dir string, err error) error {
	return fmt.Errorf("store: cannot write the data directory %s (%w): run as root, or choose another with --data-dir", dir, err)
}

func startError(dir string, err error) error {
	msg := err.Error()
	switch {
	case errors.Is(err, syscall.ENOSPC) || strings.Contains(msg, "no space left on device"):
		return fmt.Errorf("store: the disk of %s is full: free some space and start again (%w)", dir, err)
	case errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) || strings.Contains(msg, "permission denied"):
		return dirError(dir, err)
	case strings.Contains(msg, "crc mismatch") || strings.Contains(msg, "WAL") || strings.Contains(msg, "snapshot") || strings.Contains(msg, "corrupt"):
		return fmt.Errorf("store: the data in %s is damaged (%w): restore the etcd directory from a backup, or move it away to start empty", dir, err)
	}
	return fmt.Errorf("store: cannot start the embedded etcd in %s: %w", dir, err)
}
