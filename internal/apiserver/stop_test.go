package apiserver

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	apirequest "k8s.io/apiserver/pkg/endpoints/request"
)

// A stop ends what is long-running, a followed log as well as a watch, and lets other requests finish.
func TestStopEndsLongRunningRequests(t *testing.T) {
	stopping, stop := context.WithCancel(t.Context())
	stop()
	var ended error
	handler := endWith(stopping, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if ended = r.Context().Err(); ended == nil && r.URL.Path == "/log" {
			<-r.Context().Done()
			ended = r.Context().Err()
		}
	}), func(r *http.Request, _ *apirequest.RequestInfo) bool { return r.URL.Path == "/log" })
	for path, want := range map[string]error{"/log": context.Canceled, "/pods": nil} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
		handler.ServeHTTP(nil, r.WithContext(apirequest.WithRequestInfo(r.Context(), &apirequest.RequestInfo{})))
		if !errors.Is(ended, want) {
			t.Errorf("%s: %v, want %v", path, ended, want)
		}
	}
}
