package streaming

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	"k8s.io/klog/v2"
)

// How long the API server's answers are believed, the kubelet's defaults.
const (
	tokenTTL = 2 * time.Minute
	allowTTL = 5 * time.Minute
	denyTTL  = 30 * time.Second
)

// access lets callers through who may.
type access struct {
	node          string
	authenticator authenticator.Request
	authorizer    authorizer.Authorizer
}

func newAccess(o *Options) (*access, error) {
	a := &access{node: o.NodeName, authenticator: o.Authenticator, authorizer: o.Authorizer}
	if a.authenticator == nil {
		ca, err := dynamiccertificates.NewStaticCAContent("client-ca", o.ClientCA)
		if err != nil {
			return nil, fmt.Errorf("streaming: client CA: %w", err)
		}
		a.authenticator, _, err = authenticatorfactory.DelegatingAuthenticatorConfig{
			CacheTTL:                           tokenTTL,
			ClientCertificateCAContentProvider: ca,
			TokenAccessReviewClient:            o.Client.AuthenticationV1(),
			WebhookRetryBackoff:                genericoptions.DefaultAuthWebhookRetryBackoff(),
		}.New()
		if err != nil {
			return nil, fmt.Errorf("streaming: authentication: %w", err)
		}
	}
	if a.authorizer == nil {
		var err error
		a.authorizer, err = authorizerfactory.DelegatingAuthorizerConfig{
			SubjectAccessReviewClient: o.Client.AuthorizationV1(),
			AllowCacheTTL:             allowTTL,
			DenyCacheTTL:              denyTTL,
			WebhookRetryBackoff:       genericoptions.DefaultAuthWebhookRetryBackoff(),
		}.New()
		if err != nil {
			return nil, fmt.Errorf("streaming: authorization: %w", err)
		}
	}
	return a, nil
}

// guard serves next to those who may have it.
func (a *access) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, ok, err := a.authenticator.AuthenticateRequest(r)
		if err != nil || !ok {
			klog.FromContext(r.Context()).V(2).Info("Refused an unknown caller", "from", r.RemoteAddr, "path", r.URL.Path, "err", err)
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		status, message := a.allow(who.User, r)
		if status != http.StatusOK {
			http.Error(w, message, status)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// allow asks for each subresource that would give the request; one is enough.
func (a *access) allow(who user.Info, r *http.Request) (status int, message string) {
	verb := verbs[r.Method]
	wanted := subresources(r.URL.Path)
	for _, subresource := range wanted {
		decision, _, err := a.authorizer.Authorize(r.Context(), authorizer.AttributesRecord{
			User: who, Verb: verb, APIVersion: "v1", Resource: "nodes", Subresource: subresource, Name: a.node,
			ResourceRequest: true, Path: r.URL.Path,
		})
		if err != nil {
			klog.FromContext(r.Context()).Error(err, "Cannot ask the API server what a caller may do", "user", who.GetName())
			return http.StatusInternalServerError, fmt.Sprintf("Authorization error (user=%s, verb=%s, resource=nodes, subresource=%s)", who.GetName(), verb, subresource)
		}
		if decision == authorizer.DecisionAllow {
			return http.StatusOK, ""
		}
	}
	return http.StatusForbidden, fmt.Sprintf("Forbidden (user=%s, verb=%s, resource=nodes, subresource(s)=%v)", who.GetName(), verb, wanted)
}

var verbs = map[string]string{
	http.MethodPost: "create", http.MethodGet: "get", http.MethodPut: "update", http.MethodPatch: "patch", http.MethodDelete: "delete",
}

// subresources of nodes, as the kubelet maps its paths to them; "proxy" gives everything else.
// https://kubernetes.io/docs/reference/access-authn-authz/kubelet-authn-authz/
func subresources(path string) []string {
	root, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch {
	case slices.Contains([]string{"stats", "metrics"}, root):
		return []string{root}
	case root == "logs":
		return []string{"log"}
	case root == "runningpods":
		return []string{"pods", "proxy"}
	case slices.Contains([]string{"pods", "healthz", "configz"}, root):
		return []string{root, "proxy"}
	}
	return []string{"proxy"}
}
