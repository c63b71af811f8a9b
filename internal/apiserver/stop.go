package apiserver

import (
	"context"
	"net/http"
	"time"

	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	genericapiserver "k8s.io/apiserver/pkg/server"
)

const (
	// drainTimeout bounds how long a stopping server waits for requests to end and connections to close. An HTTP/2
	// client has a second to say that it has heard of the end.
	drainTimeout = 2 * time.Second
	// stopTimeout bounds Run after its context ends, whatever upstream waits for.
	stopTimeout = 4 * time.Second
)

// endRequests makes a stopping server end at once what would go on for ever: watches, followed logs and the like.
func (a *assembly) endRequests() error {
	stopping, stop := context.WithCancel(context.Background())
	go func() {
		<-a.generic.ShutdownInitiatedNotify()
		stop()
	}()
	a.generic.BuildHandlerChainFunc = func(api http.Handler, c *genericapiserver.Config) http.Handler {
		return genericapiserver.DefaultBuildHandlerChain(endWith(stopping, api, c.LongRunningFunc), c)
	}
	return nil
}

// endWith ends long-running requests when the context does. It is for the inside of the handler chain.
func endWith(stopping context.Context, next http.Handler, longRunning apirequest.LongRunningRequestCheck) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if info, ok := apirequest.RequestInfoFrom(r.Context()); ok && longRunning(r, info) {
			ctx, cancel := context.WithCancel(r.Context())
			defer cancel()
			defer context.AfterFunc(stopping, cancel)()
			r = r.WithContext(ctx)
		}
		next.ServeHTTP(w, r)
	})
}
