package direct

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/handlers/finisher"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/metrics"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/api/legacyscheme"

	"github.com/everynode/everynode/internal/apiserver/growstack"
)

const (
	// timeout is the handlers' own upper bound for a write.
	timeout = 34 * time.Second
	// userAgent tells in the audit log that no connection was involved.
	userAgent = "everynode/direct"
)

// target is a resource as the API names it.
type target struct {
	kind        schema.GroupVersionKind
	resource    schema.GroupVersionResource
	subresource string
	prefix      string // of the URL path, up to the version
}

// call is one write: what a request would have said about itself.
type call struct {
	target
	w               *Writer
	ctx             context.Context // a call lives no longer than its context
	verb            string
	namespace, name string
}

func (w *Writer) call(ctx context.Context, t target, verb, namespace, name string) *call {
	return &call{target: t, w: w, ctx: ctx, verb: verb, namespace: namespace, name: name}
}

// run performs do within the filters that see every request of the API, and converts its result to out (nil: not
// wanted). It returns only API statuses as errors, and does not panic.
func (c *call) run(do func(context.Context) (runtime.Object, error), out runtime.Object) (err error) {
	growstack.Grow()
	err = apierrors.NewInternalError(errors.New("the audit event could not be stored, so nothing was written"))
	var handler http.Handler = metrics.InstrumentHandlerFunc(c.method(), c.kind.Group, c.kind.Version, c.resource.Resource, c.subresource,
		"resource", metrics.APIServerComponent, false, "", func(w http.ResponseWriter, r *http.Request) {
			var code int
			code, err = c.perform(r.Context(), do, out)
			w.WriteHeader(code)
		})
	handler = filters.WithAudit(handler, c.w.o.AuditBackend, c.w.o.AuditPolicyEvaluator, nil)
	handler = filters.WithAuditInit(handler)
	defer func() {
		if r := recover(); r != nil {
			klog.FromContext(c.ctx).Error(nil, "panic in a direct write", "verb", c.verb, "resource", c.resource.Resource,
				"namespace", c.namespace, "name", c.name, "panic", r, "stack", string(debug.Stack()))
			err = apierrors.NewInternalError(fmt.Errorf("panic while serving %s %s/%s: %v", c.verb, c.namespace, c.name, r))
		}
	}()
	handler.ServeHTTP(discard{}, c.request())
	return err
}

// perform runs do under the handlers' deadline and reports what it came to, as the handlers do with a response.
func (c *call) perform(ctx context.Context, do func(context.Context) (runtime.Object, error), out runtime.Object) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	// The goroutine in FinishRequest may outlive the deadline; it works on copies only.
	stored, err := finisher.FinishRequest(ctx, func() (runtime.Object, error) {
		growstack.Grow()
		return do(ctx)
	})
	if err != nil {
		status := responsewriters.ErrorToAPIStatus(err)
		audit.LogResponseObject(ctx, status, c.kind.GroupVersion(), legacyscheme.Codecs)
		return int(status.Code), &apierrors.StatusError{ErrStatus: *status}
	}
	if stored != nil {
		audit.LogResponseObject(ctx, stored, c.kind.GroupVersion(), legacyscheme.Codecs)
	}
	if out != nil {
		if err := legacyscheme.Scheme.Convert(stored, out, nil); err != nil {
			return http.StatusInternalServerError, apierrors.NewInternalError(fmt.Errorf("convert the stored %s: %w", c.kind.Kind, err))
		}
	}
	if c.verb == "create" {
		return http.StatusCreated, nil
	}
	return http.StatusOK, nil
}

// request is the HTTP request that would have asked for this write.
func (c *call) request() *http.Request {
	path := c.path()
	ctx := request.WithReceivedTimestamp(c.ctx, time.Now())
	ctx = request.WithLatencyTrackers(ctx)
	ctx = request.WithUser(request.WithNamespace(ctx, c.namespace), c.w.o.User)
	ctx = request.WithRequestInfo(ctx, &request.RequestInfo{
		IsResourceRequest: true, Path: path, Verb: c.verb, APIPrefix: c.apiPrefix(), APIGroup: c.resource.Group, APIVersion: c.resource.Version,
		Namespace: c.namespace, Resource: c.resource.Resource, Subresource: c.subresource, Name: c.requestName(),
	})
	r := &http.Request{Method: c.method(), URL: &url.URL{Path: path}, Header: http.Header{"User-Agent": {userAgent}}, RemoteAddr: "127.0.0.1:0", Body: http.NoBody}
	return r.WithContext(ctx)
}

func (c *call) apiPrefix() string {
	if c.resource.Group == "" {
		return "api"
	}
	return "apis"
}

// requestName is the name in the URL: a create has none.
func (c *call) requestName() string {
	if c.verb == "create" {
		return ""
	}
	return c.name
}

func (c *call) path() string {
	p := c.prefix
	if c.namespace != "" {
		p += "/namespaces/" + c.namespace
	}
	p += "/" + c.resource.Resource
	if name := c.requestName(); name != "" {
		p += "/" + name
	}
	if c.subresource != "" {
		p += "/" + c.subresource
	}
	return p
}

func (c *call) method() string {
	switch c.verb {
	case "create":
		return http.MethodPost
	case "update":
		return http.MethodPut
	default:
		return http.MethodDelete
	}
}

// discard is a response nobody reads; the filters only want its status code.
type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}
