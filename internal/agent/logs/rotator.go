package logs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"k8s.io/klog/v2"
)

// The kubelet's defaults.
const (
	DefaultMaxSize  = 10 << 20
	DefaultMaxFiles = 5
	DefaultEvery    = 10 * time.Second
)

// Log is where the runtime writes what a running container says.
type Log struct {
	// ContainerID in the runtime.
	ContainerID string
	Path        string
}

// Runtime is the part of the CRI that rotation needs.
type Runtime interface {
	ReopenContainerLog(ctx context.Context, containerID string) error
}

// Options of a Rotator. Runtime and Running are required.
type Options struct {
	Runtime Runtime
	// Running are the logs of the containers that run now.
	Running func() []Log
	// MaxSize in bytes a log may reach before it is rotated. Default 10 MiB; negative: no rotation.
	MaxSize int64
	// MaxFiles that a container's log may consist of, the one being written included. Default 5.
	MaxFiles int
	// Every is how often the sizes are looked at. Default 10 s.
	Every time.Duration
}

// Validate fills in defaults and reports the first option that is missing or cannot work.
func (o *Options) Validate() error {
	if o.MaxSize == 0 {
		o.MaxSize = DefaultMaxSize
	}
	if o.MaxFiles == 0 {
		o.MaxFiles = DefaultMaxFiles
	}
	if o.Every == 0 {
		o.Every = DefaultEvery
	}
	switch {
	case o.Runtime == nil || o.Running == nil:
		return errors.New("logs: Runtime and Running must be set")
	case o.MaxFiles < 2:
		return fmt.Errorf("logs: MaxFiles is %d: a log that is rotated has two files at least", o.MaxFiles)
	case o.Every < 0:
		return fmt.Errorf("logs: Every is %v: it must be positive", o.Every)
	}
	return nil
}

// Rotator rotates logs that have grown too large.
type Rotator struct {
	o   Options
	now func() time.Time
	// failed are the logs whose last rotation failed, to say so once.
	failed map[string]bool
}

// New checks the options and returns a Rotator that does nothing until Run.
func New(o Options) (*Rotator, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return &Rotator{o: o, now: time.Now, failed: map[string]bool{}}, nil
}

// Run looks at the logs' sizes now and then, until ctx ends. A look costs one stat a container.
func (r *Rotator) Run(ctx context.Context) error {
	if r.o.MaxSize < 0 {
		return nil
	}
	ticker := time.NewTicker(r.o.Every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			r.look(ctx)
		}
	}
}

// look rotates each log that is too large, one after the other: compressing them all at once would
// take the machine from its pods.
func (r *Rotator) look(ctx context.Context) {
	running := r.o.Running()
	failed := map[string]bool{}
	for _, log := range running {
		if ctx.Err() != nil {
			return
		}
		if err := r.check(ctx, log); err != nil && ctx.Err() == nil {
			failed[log.Path] = true
			if !r.failed[log.Path] {
				klog.FromContext(ctx).Error(err, "A container's log could not be rotated; trying again", "path", log.Path, "every", r.o.Every)
			}
		}
	}
	r.failed = failed
}

func (r *Rotator) check(ctx context.Context, log Log) error {
	info, err := os.Stat(log.Path)
	if errors.Is(err, os.ErrNotExist) {
		// An agent that was killed between renaming the log and telling the runtime leaves this behind.
		if err := r.o.Runtime.ReopenContainerLog(ctx, log.ContainerID); err != nil {
			return fmt.Errorf("the log is not there and the runtime does not open it: %w", err)
		}
		return nil
	}
	if err != nil || info.Size() < r.o.MaxSize {
		return err
	}
	return r.rotate(ctx, log)
}
