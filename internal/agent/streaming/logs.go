package streaming

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cri-client/pkg/logs"
	"k8s.io/utils/ptr"

	rotation "github.com/everynode/everynode/internal/agent/logs"
)

// containerLogs serves what a container has written, and what it goes on writing.
func (s *Server) containerLogs(w http.ResponseWriter, r *http.Request) {
	options, status, err := logOptions(r)
	if err != nil {
		http.Error(w, err.Error(), status)
		return
	}
	name := r.PathValue("container")
	pod := s.pod(w, r, name)
	if pod == nil {
		return
	}
	path, id, err := s.o.Pods.LogFile(pod.Namespace, pod.Name, pod.UID, name, options.Previous)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	out := &flushing{w: w}
	var stdout, stderr io.Writer = out, out
	if options.Stream != nil {
		switch *options.Stream {
		case corev1.LogStreamStdout:
			stderr = nil
		case corev1.LogStreamStderr:
			stdout = nil
		}
	}
	w.Header().Set("Content-Type", "text/plain")
	if options.Follow {
		// The caller waits for the first byte else, and it may be long in coming.
		out.flush()
	}
	read := readOptions(options, time.Now())
	err = s.readBefore(r.Context(), path, id, *read, stdout, stderr)
	if read.LimitBytes != nil {
		read.LimitBytes = ptr.To(*read.LimitBytes - out.written)
	}
	if err == nil && ptr.Deref(read.LimitBytes, 1) > 0 {
		err = logs.ReadLogs(r.Context(), path, id, read, s.o.Runtime, stdout, stderr)
	}
	if err != nil && !out.begun && r.Context().Err() == nil {
		http.Error(w, fmt.Sprintf("failed to read the log of container %q: %v", name, err), http.StatusBadRequest)
	}
}

// logOptions reads the query of `kubectl logs`. client-go cannot decode these options from a query;
// the one that can is not a library.
func logOptions(r *http.Request) (*corev1.PodLogOptions, int, error) {
	query := r.URL.Query()
	// The kubelet's old name for tailLines.
	if tail := query.Get("tail"); tail == "all" {
		query.Del("tailLines")
	} else if tail != "" {
		query.Set("tailLines", tail)
	}
	options := &corev1.PodLogOptions{Follow: flag(query, "follow"), Previous: flag(query, "previous"), Timestamps: flag(query, "timestamps")}
	var err error
	for name, field := range map[string]**int64{"tailLines": &options.TailLines, "limitBytes": &options.LimitBytes, "sinceSeconds": &options.SinceSeconds} {
		if *field, err = number(query, name); err != nil {
			return nil, http.StatusBadRequest, err
		}
		if n := *field; n != nil && (*n < 0 || *n == 0 && name != "tailLines") {
			return nil, http.StatusUnprocessableEntity, fmt.Errorf("invalid %s %d", name, *n)
		}
	}
	if text := query.Get("sinceTime"); text != "" {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return nil, http.StatusBadRequest, fmt.Errorf("unable to decode sinceTime: %w", err)
		}
		options.SinceTime = &metav1.Time{Time: at}
	}
	if options.SinceSeconds != nil && options.SinceTime != nil {
		return nil, http.StatusUnprocessableEntity, errors.New("at most one of sinceTime and sinceSeconds may be given")
	}
	switch stream := query.Get("stream"); stream {
	case "", corev1.LogStreamAll:
	case corev1.LogStreamStdout, corev1.LogStreamStderr:
		options.Stream = &stream
	default:
		return nil, http.StatusUnprocessableEntity, fmt.Errorf("invalid stream %q: want All, Stdout or Stderr", stream)
	}
	return options, 0, nil
}

// readBefore reads what a log that was begun anew a moment ago lacks of the lines that are asked for:
// they are the last of what was rotated away.
func (s *Server) readBefore(ctx context.Context, path, id string, o logs.LogOptions, stdout, stderr io.Writer) error {
	if o.TailLines == nil || *o.TailLines <= 0 {
		return nil
	}
	before := rotation.Predecessor(path)
	if before == "" {
		return nil
	}
	has, err := rotation.Lines(path, *o.TailLines)
	if err != nil || has == *o.TailLines {
		return nil //nolint:nilerr // whoever reads the log itself reports it
	}
	o.TailLines, o.Follow = ptr.To(*o.TailLines-has), false
	err = logs.ReadLogs(ctx, before, id, &o, s.o.Runtime, stdout, stderr)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // compressed in this moment
	}
	return err
}

// flag is on with any value but these, as the API server has it.
func flag(query url.Values, name string) bool {
	return query.Has(name) && !slices.Contains([]string{"false", "0"}, query.Get(name))
}

// number is nil for a parameter that is not there.
func number(query url.Values, name string) (*int64, error) {
	text := query.Get(name)
	if text == "" {
		return nil, nil // as the options have it
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("unable to decode %s: %w", name, err)
	}
	return &n, nil
}

func readOptions(o *corev1.PodLogOptions, now time.Time) *logs.LogOptions {
	read := &logs.LogOptions{TailLines: o.TailLines, LimitBytes: o.LimitBytes, Follow: o.Follow, Timestamp: o.Timestamps}
	if o.SinceSeconds != nil {
		read.Since = now.Add(-time.Duration(*o.SinceSeconds) * time.Second)
	}
	if o.SinceTime != nil {
		read.Since = o.SinceTime.Time
	}
	return read
}

// flushing sends every write at once.
type flushing struct {
	w     http.ResponseWriter
	begun bool
	// written is how much the caller has got.
	written int64
}

// Write implements io.Writer.
func (f *flushing) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	f.written += int64(n)
	if err == nil {
		f.flush()
	}
	return n, err
}

func (f *flushing) flush() {
	f.begun = true
	_ = http.NewResponseController(f.w).Flush()
}
