package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"
	"k8s.io/apiserver/pkg/storage/etcd3/metrics"
	"k8s.io/klog/v2"
)

const (
	// healthKey is read to see whether etcd answers; it is never written.
	healthKey     = "/registry/health"
	healthTimeout = 2 * time.Second
	guardInterval = 2 * time.Second
	// reclaimInterval is how often a full database is compacted in the hope of room.
	reclaimInterval = 10 * time.Second
)

// Live reports whether the store answers consistent reads. It is the question behind /livez and /readyz.
func (b *Backend) Live(ctx context.Context) error {
	if err := b.Err(); err != nil {
		return fmt.Errorf("the embedded etcd has stopped: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	if _, err := b.client.Get(ctx, healthKey); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("etcd gave no answer within %s: it has no quorum, or its disk is very slow (%w)", healthTimeout, err)
		}
		return fmt.Errorf("etcd: %w", err)
	}
	return nil
}

// Writable reports whether the store accepts writes; the error says why not and what to do. Part of /readyz only:
// a full store still serves reads, and a restart would not help.
func (b *Backend) Writable(ctx context.Context) error {
	if b.guard != nil {
		return b.guard.writable()
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	var errs []error
	for _, ep := range b.servers {
		s, err := b.client.Status(ctx, ep)
		if err != nil {
			continue // quorum is Live's question; one member may be down
		}
		for _, e := range s.Errors {
			if strings.Contains(e, "NOSPACE") {
				return fmt.Errorf("etcd at %s has reached its size quota and refuses writes: delete objects, then compact, defragment and run `etcdctl alarm disarm`", ep)
			}
			errs = append(errs, fmt.Errorf("etcd at %s: %s", ep, e))
		}
	}
	return errors.Join(errs...)
}

// Observe makes this backend the source of the storage size metric. Upstream would dial etcd for each scrape.
func (b *Backend) Observe() {
	if b.Embedded() {
		metrics.SetStorageMonitorGetter(func() ([]metrics.Monitor, error) { return []metrics.Monitor{monitor{b.embedded}}, nil })
	}
}

type monitor struct{ e *embedded }

func (m monitor) Monitor(context.Context) (metrics.StorageMetrics, error) {
	return metrics.StorageMetrics{Size: m.e.etcd.Server.Backend().Size()}, nil
}

func (m monitor) Close() error { return nil }

// guard keeps an embedded etcd from running into a full disk, which it would not survive, and brings it back to
// accepting writes when there is room again, which etcd does not do by itself. Refusing writes is etcd's own NOSPACE
// alarm: reads, deletes and compaction still work.
type guard struct {
	e       *embedded
	quota   int64
	reserve uint64

	cancel    context.CancelFunc
	done      chan struct{}
	free      func() (uint64, error) // free bytes on the disk; replaced in tests
	reclaimed time.Time
	room      *holder
}

func startGuard(e *embedded, quota int64, reserve uint64) *guard {
	ctx, cancel := context.WithCancel(context.Background())
	g := &guard{e: e, quota: quota, reserve: reserve, cancel: cancel, done: make(chan struct{}),
		free: func() (uint64, error) { return freeSpace(e.dir) }, room: newHolder(e.dir)}
	g.hold()
	go g.run(ctx)
	return g
}

func (g *guard) stop() {
	g.cancel()
	<-g.done
}

func (g *guard) run(ctx context.Context) {
	defer close(g.done)
	t := time.NewTicker(guardInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if err := g.step(ctx); err != nil && ctx.Err() == nil {
				klog.ErrorS(err, "Guarding the store's disk space")
			}
			g.hold()
		}
	}
}

func (g *guard) hold() {
	if g.full() {
		return // the rest is for others
	}
	if err := g.room.hold(); err != nil {
		klog.ErrorS(err, "A disk that fills up at once would end the store")
	}
}

// step raises the alarm when the disk is nearly full, and lowers it when both disk and database have room.
func (g *guard) step(ctx context.Context) error {
	free, err := g.free()
	if err != nil {
		return err
	}
	full := g.full()
	switch {
	case !full && free < g.reserve:
		klog.ErrorS(nil, "The disk is nearly full: writes are refused until there is space", "dir", g.e.dir, "freeMiB", free>>20, "neededMiB", g.reserve>>20)
		return g.alarm(ctx, pb.AlarmRequest_ACTIVATE)
	case full && free < g.reserve+g.reserve/4:
		return nil // more than was missing, so that it does not flap
	case full:
		return g.recover(ctx)
	}
	return nil
}

// recover compacts and defragments a database at its quota, and lowers the alarm when that made room.
func (g *guard) recover(ctx context.Context) error {
	be := g.e.etcd.Server.Backend()
	if be.Size() >= g.quota*9/10 {
		if time.Since(g.reclaimed) < reclaimInterval {
			return nil
		}
		g.reclaimed = time.Now()
		if err := g.reclaim(ctx); err != nil {
			return err
		}
		if be.Size() >= g.quota*9/10 {
			return nil // really full: objects have to go
		}
	}
	klog.InfoS("The store has room again: writes are accepted", "sizeMiB", be.Size()>>20, "quotaMiB", g.quota>>20)
	return g.alarm(ctx, pb.AlarmRequest_DEACTIVATE)
}

func (g *guard) reclaim(ctx context.Context) error {
	r, err := g.e.client.Get(ctx, healthKey)
	if err != nil {
		return err
	}
	if _, err := g.e.client.Compact(ctx, r.Header.Revision, clientv3.WithCompactPhysical()); err != nil && !strings.Contains(err.Error(), "compacted") {
		return err
	}
	be := g.e.etcd.Server.Backend()
	be.ForceCommit()
	if be.SizeInUse() >= g.quota*8/10 {
		return nil
	}
	return g.e.etcd.Server.Defragment()
}

func (g *guard) full() bool {
	for _, a := range g.e.etcd.Server.Alarms() {
		if a.Alarm == pb.AlarmType_NOSPACE {
			return true
		}
	}
	return false
}

func (g *guard) alarm(ctx context.Context, action pb.AlarmRequest_AlarmAction) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	s := g.e.etcd.Server
	_, err := s.Alarm(ctx, &pb.AlarmRequest{Action: action, Alarm: pb.AlarmType_NOSPACE, MemberID: uint64(s.MemberID())})
	return err
}

func (g *guard) writable() error {
	for _, a := range g.e.etcd.Server.Alarms() {
		switch a.Alarm {
		case pb.AlarmType_NOSPACE:
			if free, err := g.free(); err == nil && free < g.reserve+g.reserve/4 {
				return fmt.Errorf("writes are refused: the disk of %s has %d MiB free, less than the %d MiB etcd needs to be safe; free some space", g.e.dir, free>>20, (g.reserve+g.reserve/4)>>20)
			}
			return fmt.Errorf("writes are refused: the database has reached its quota (NOSPACE, %d of %d MiB); delete objects, it recovers by itself", g.e.etcd.Server.Backend().Size()>>20, g.quota>>20)
		default:
			return fmt.Errorf("etcd raised the alarm %s", a.Alarm)
		}
	}
	return nil
}

func freeSpace(dir string) (uint64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return s.Bavail * uint64(s.Bsize), nil
}

// checkSpace refuses to start where the first write-ahead log could not even be created.
func checkSpace(dir string, reserve uint64) error {
	free, err := freeSpace(dir)
	if err != nil {
		return err
	}
	if need := min(reserve, 16<<20); free < need {
		return fmt.Errorf("store: the disk of %s is full (%d MiB free): free at least %d MiB and start again", dir, free>>20, reserve>>20)
	}
	return nil
}
