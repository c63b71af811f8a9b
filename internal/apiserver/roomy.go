package apiserver

import (
	"net/http"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	genericapiserver "k8s.io/apiserver/pkg/server"

	"github.com/everynode/everynode/internal/apiserver/growstack"
)

// roomyChain is upstream's chain of filters, on a goroutine that has the room for it.
func roomyChain(api http.Handler, c *genericapiserver.Config) http.Handler {
	chain := genericapiserver.DefaultBuildHandlerChain(api, c)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		growstack.Grow()
		chain.ServeHTTP(w, r)
	})
}

// roomy does the same for the goroutine on which upstream's timeout filter goes on: authentication is the first filter
// there that is anybody's to choose.
type roomy struct{ authenticator.Request }

// AuthenticateRequest implements authenticator.Request.
func (a roomy) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	growstack.Grow()
	return a.Request.AuthenticateRequest(r)
}
