package inprocess

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func open(h http.HandlerFunc) (*Transport, *http.Client) {
	t := &Transport{}
	t.Open(h)
	return t, &http.Client{Transport: t}
}

func request(t *testing.T, method, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "https://here/a/b?c=d", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAsOverAConnection(t *testing.T) {
	_, c := open(func(w http.ResponseWriter, r *http.Request) {
		if r.RequestURI != "/a/b?c=d" || r.Host != "here" || r.RemoteAddr != remoteAddr || r.ProtoMajor != 2 || r.TLS != nil {
			t.Errorf("the server sees %+v", r)
		}
		b, _ := io.ReadAll(r.Body)
		r.Header.Del("Authorization") // as authentication does
		w.Header().Set("X-Answer", "yes")
		w.WriteHeader(http.StatusTeapot)
		w.Header().Set("X-Answer", "too late")
		_, _ = w.Write(append([]byte("got "), b...))
	})
	r := request(t, http.MethodPost, "it")
	r.Header.Set("Authorization", "Bearer x")
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if string(b) != "got it" || err != nil || res.StatusCode != http.StatusTeapot || res.Header.Get("X-Answer") != "yes" {
		t.Errorf("%v %v: %q, %v", res.Status, res.Header, b, err)
	}
	if r.Header.Get("Authorization") == "" {
		t.Error("the handler changed the client's request")
	}
}

// A request that is made while another is served says nothing of that one.
func TestContextStaysOutside(t *testing.T) {
	type key struct{}
	var inner, outer any
	var c *http.Client
	_, c = open(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			inner = r.Context().Value(key{})
			return
		}
		ctx := context.WithValue(r.Context(), key{}, "of the outer request")
		outer = ctx.Value(key{})
		res, err := c.Do(request(t, http.MethodGet, "").WithContext(ctx))
		if err != nil {
			t.Error(err)
			return
		}
		_ = res.Body.Close()
	})
	res, err := c.Do(request(t, http.MethodPost, ""))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if inner != nil || outer == nil {
		t.Errorf("the inner request knows %v, of %v", inner, outer)
	}
}

// A handler may have returned before anybody looks for its answer.
func TestAnswersAtOnce(t *testing.T) {
	_, c := open(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("it")) })
	for i := range 20_000 {
		res, err := c.Do(request(t, http.MethodGet, ""))
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		if b, err := io.ReadAll(res.Body); string(b) != "it" || err != nil {
			t.Fatalf("request %d: %q, %v", i, b, err)
		}
		_ = res.Body.Close()
	}
}

func TestAnswersNothing(t *testing.T) {
	_, c := open(func(http.ResponseWriter, *http.Request) {})
	res, err := c.Do(request(t, http.MethodGet, ""))
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatal(res, err)
	}
	if b, err := io.ReadAll(res.Body); len(b) != 0 || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	_ = res.Body.Close()
}

// A watch is read while it is written, and its end is told to the other side, whoever ends it.
func TestStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := make(chan error, 1)
		_, c := open(func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write([]byte("event\n")); err != nil {
					break
				}
				w.(http.Flusher).Flush()
				select {
				case <-time.After(time.Second):
				case <-r.Context().Done():
				}
			}
			gone <- context.Cause(r.Context())
		})
		res, err := c.Do(request(t, http.MethodGet, ""))
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			p := make([]byte, 6)
			if _, err := io.ReadFull(res.Body, p); err != nil || string(p) != "event\n" {
				t.Fatalf("%q, %v", p, err)
			}
		}
		_ = res.Body.Close()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("the handler goes on: %v", err)
		}
	})
}

func TestEnds(t *testing.T) {
	slow := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for name, tc := range map[string]struct {
		handler http.HandlerFunc
		end     func(*Transport, context.CancelFunc)
		want    error
	}{
		"the client gives up":  {slow, func(_ *Transport, cancel context.CancelFunc) { cancel() }, context.Canceled},
		"the server is closed": {slow, func(tr *Transport, _ context.CancelFunc) { tr.Close() }, ErrClosed},
		"the handler panics":   {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, func(*Transport, context.CancelFunc) {}, io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr, c := open(tc.handler)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				time.AfterFunc(time.Second, func() { tc.end(tr, cancel) })
				res, err := c.Do(request(t, http.MethodGet, "").WithContext(ctx))
				if err == nil {
					t.Errorf("an answer: %s", res.Status)
					_ = res.Body.Close()
				}
				if !errors.Is(err, tc.want) {
					t.Errorf("%v, want %v", err, tc.want)
				}
			})
		})
	}
}

// A stream that is open when the server stops ends with the server.
func TestCloseEndsStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, c := open(func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		})
		res, err := c.Do(request(t, http.MethodGet, ""))
		if err != nil {
			t.Fatal(err)
		}
		tr.Close()
		if _, err := io.ReadAll(res.Body); !errors.Is(err, ErrClosed) {
			t.Errorf("%v, want %v", err, ErrClosed)
		}
		_ = res.Body.Close()
		if _, err := c.Do(request(t, http.MethodGet, "")); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v, want %v", err, ErrClosed)
		}
	})
}

func TestWaitsUntilOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &Transport{}
		c := &http.Client{Transport: tr}
		answered := false
		go func() {
			res, err := c.Do(request(t, http.MethodGet, ""))
			if err != nil {
				t.Error(err)
				return
			}
			_ = res.Body.Close()
			answered = true
		}()
		synctest.Wait()
		if answered {
			t.Error("answered by nobody")
		}
		tr.Open(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		synctest.Wait()
		if !answered {
			t.Error("not answered")
		}
	})
}

// A reader that does not keep up holds the handler back, and loses nothing.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		want := bytes.Repeat([]byte("0123456789abcdef"), room) // many times the room
		written := 0
		_, c := open(func(w http.ResponseWriter, _ *http.Request) {
			for p := want; len(p) > 0; p = p[1<<14:] {
				if _, err := w.Write(p[:1<<14]); err != nil {
					t.Error(err)
					return
				}
				written += 1 << 14
			}
		})
		res, err := c.Do(request(t, http.MethodGet, ""))
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if written > 2*room {
			t.Errorf("%d bytes are waiting", written)
		}
		got, err := io.ReadAll(res.Body)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d of %d bytes, %v", len(got), len(want), err)
		}
		_ = res.Body.Close()
	})
}
