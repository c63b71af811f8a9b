package inprocess

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
)

// room is how much of an answer may wait to be read; the handler waits beyond that.
const room = 256 << 10

// answer is what a handler writes and a client reads, at the same time: a ResponseWriter on one side, the body of a
// Response on the other.
type answer struct {
	cancel context.CancelCauseFunc
	header http.Header   // the handler's own, until the status is written
	begun  chan struct{} // closed when there is a status, or never will be

	mu      sync.Mutex
	changed sync.Cond
	status  int
	sent    http.Header
	pending []byte // unread is pending[read:]
	read    int
	end     error // io.EOF: nothing more will be written
}

func newAnswer(cancel context.CancelCauseFunc) *answer {
	a := &answer{cancel: cancel, header: http.Header{}, begun: make(chan struct{})}
	a.changed.L = &a.mu
	return a
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.begin(status)
}

// begin sends the status and the headers. The caller holds mu. Informational answers are left out.
func (a *answer) begin(status int) {
	if a.status != 0 || status < http.StatusOK || a.end != nil {
		return
	}
	a.status, a.sent = status, a.header.Clone()
	close(a.begun)
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.begin(http.StatusOK)
	for len(a.pending)-a.read >= room && a.end == nil {
		a.changed.Wait()
	}
	if a.end != nil {
		return 0, a.end
	}
	if a.read > 0 && a.read == len(a.pending) {
		a.pending, a.read = a.pending[:0], 0
	}
	a.pending = append(a.pending, p...)
	a.changed.Broadcast()
	return len(p), nil
}

// Flush implements http.Flusher: nothing is held back.
func (a *answer) Flush() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.begin(http.StatusOK)
}

// CloseNotify implements http.CloseNotifier, by which upstream's filters know a streaming ResponseWriter. Handlers look
// at the request's context.
func (a *answer) CloseNotify() <-chan bool { return nil }

// finish is the end of a handler that has written all.
func (a *answer) finish() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.begin(http.StatusOK)
	a.over(io.EOF)
}

// abort ends the answer before its time: the reader gets err once it has read what there is, the writer at once.
func (a *answer) abort(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over(err)
}

// over is for the first who ends the answer. The caller holds mu.
func (a *answer) over(err error) {
	if a.end != nil {
		return
	}
	a.end = err
	a.changed.Broadcast()
	if a.status == 0 {
		close(a.begun)
	}
}

// Read implements io.Reader, for the client.
func (a *answer) Read(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.read == len(a.pending) && a.end == nil {
		a.changed.Wait()
	}
	if a.read == len(a.pending) {
		return 0, a.end
	}
	n := copy(p, a.pending[a.read:])
	a.read += n
	if a.read == len(a.pending) {
		a.pending, a.read = a.pending[:0], 0
		if cap(a.pending) > room {
			a.pending = nil
		}
	}
	a.changed.Broadcast()
	return n, nil
}

// Close implements io.Closer, for the client: it wants no more.
func (a *answer) Close() error {
	a.abort(context.Canceled)
	a.cancel(context.Canceled)
	return nil
}

// response is what the client gets, or why there is none. The caller has seen begun closed.
func (a *answer) response(r *http.Request) (*http.Response, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.status == 0 {
		return nil, a.end
	}
	return &http.Response{
		Status: fmt.Sprintf("%d %s", a.status, http.StatusText(a.status)), StatusCode: a.status,
		Proto: "HTTP/2.0", ProtoMajor: 2, Header: a.sent, Body: a, ContentLength: -1, Request: r,
	}, nil
}
