package election

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"k8s.io/client-go/rest"
)

// ErrDeposed is the error of a request made through a [Fence] after the term is over.
var ErrDeposed = errors.New("this server no longer leads")

// Fence returns a copy of c whose clients refuse every request once term is over. Whatever a
// controller still does on a goroutine of its own can then no longer reach the API server.
func Fence(term context.Context, c *rest.Config) *rest.Config {
	fenced := rest.CopyConfig(c)
	fenced.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return &fence{term: term, next: next}
	})
	return fenced
}

type fence struct {
	term context.Context
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (f *fence) RoundTrip(r *http.Request) (*http.Response, error) {
	if f.term.Err() != nil {
		if r.Body != nil {
			_ = r.Body.Close() // a RoundTripper must, even when it refuses
		}
		return nil, fmt.Errorf("%s %s: %w", r.Method, r.URL.Path, ErrDeposed)
	}
	return f.next.RoundTrip(r)
}

// WrappedRoundTripper lets client-go find the transport below.
func (f *fence) WrappedRoundTripper() http.RoundTripper { return f.next }
