package store

import (
	"errors"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc/grpclog"
	"k8s.io/klog/v2"
)

// etcdLog writes etcd's error messages to our log, and catches the ones after which etcd would end the process:
// the goroutine that logged it ends instead, and failed is closed, so that the server can say what happened and stop
// in order.
type etcdLog struct {
	failed chan struct{}
	once   sync.Once
	cause  error
	closed atomic.Bool // from here on, closed sockets are no errors
}

func newEtcdLog() *etcdLog { return &etcdLog{failed: make(chan struct{})} }

func (l *etcdLog) zap() *zap.Logger {
	level := zap.LevelEnablerFunc(func(lvl zapcore.Level) bool {
		return lvl > zapcore.ErrorLevel || lvl == zapcore.ErrorLevel && !l.closed.Load()
	})
	return zap.New(klogCore{level}, zap.WithFatalHook(l), zap.WithPanicHook(l))
}

// OnWrite is called for fatal and panic entries.
func (l *etcdLog) OnWrite(entry *zapcore.CheckedEntry, fields []zapcore.Field) {
	l.once.Do(func() {
		l.cause = errors.New(describe(entry.Message, fields))
		close(l.failed)
	})
	runtime.Goexit()
}

func (l *etcdLog) err() error {
	select {
	case <-l.failed:
		return l.cause
	default:
		return nil
	}
}

// quietGRPC leaves gRPC its errors. Its warnings tell of every connection that an etcd client opens and drops while it
// settles on an address, four times at each start.
var quietGRPC = sync.OnceFunc(func() {
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, os.Stderr))
})

// klogCore is a zapcore.Core that writes to klog.
type klogCore struct{ zapcore.LevelEnabler }

func (c klogCore) With([]zapcore.Field) zapcore.Core { return c }
func (c klogCore) Sync() error                       { return nil }

func (c klogCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c klogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	klog.ErrorS(nil, "etcd: "+describe(e.Message, fields))
	return nil
}

// describe adds the error of an entry, which carries the cause, to its message.
func describe(msg string, fields []zapcore.Field) string {
	for _, f := range fields {
		if err, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			return msg + ": " + err.Error()
		}
	}
	return msg
}
