package apiserver

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	authorizationmetrics "k8s.io/apiserver/pkg/authorization/metrics"
	"k8s.io/apiserver/pkg/authorization/union"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/util/keyutil"
	"k8s.io/kubernetes/pkg/auth/nodeidentifier"
	serviceaccountcontroller "k8s.io/kubernetes/pkg/controller/serviceaccount"
	kubeauthenticator "k8s.io/kubernetes/pkg/kubeapiserver/authenticator"
	"k8s.io/kubernetes/pkg/routes"
	"k8s.io/kubernetes/pkg/serviceaccount"
	"k8s.io/kubernetes/plugin/pkg/auth/authenticator/token/bootstrap"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/node"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy"
)

const (
	// issuer names us in service account tokens, as every Kubernetes client library expects it by default.
	issuer = "https://kubernetes.default.svc.cluster.local"
	// tokenExtension is how much longer than asked for a pod's own token works, for clients that never read it again;
	// upstream's default.
	tokenExtension = 365 * 24 * time.Hour
	// tokenCache is how long a token that was good stays good without another look; upstream's default.
	tokenCache = 10 * time.Second
)

// authenticate accepts client certificates of our CA, service account tokens, and bootstrap tokens. Everybody else is
// anonymous, and may read the health and version only.
func (a *assembly) authenticate(ctx context.Context) error {
	ca, err := dynamiccertificates.NewDynamicCAContentFromFile("client-ca", a.options.PKI.CACertFile())
	if err != nil {
		return fmt.Errorf("client CA: %w", err)
	}
	info := &a.generic.Authentication
	if err := info.ApplyClientCert(ca, a.generic.SecureServing); err != nil {
		return fmt.Errorf("client CA: %w", err)
	}
	if a.tokenKeys, err = tokenKeys(a.options.PKI.ServiceAccountKeyFile()); err != nil {
		return fmt.Errorf("service account key: %w", err)
	}
	info.APIAudiences = authenticator.Audiences{issuer}
	core := a.informers.Core().V1()
	request, _, securityV2, securityV3, err := kubeauthenticator.Config{
		Anonymous:                      apiserver.AnonymousAuthConfig{Enabled: true},
		BootstrapToken:                 true,
		BootstrapTokenAuthenticator:    bootstrap.NewTokenAuthenticator(core.Secrets().Lister().Secrets(metav1.NamespaceSystem)),
		ClientCAContentProvider:        ca,
		APIAudiences:                   info.APIAudiences,
		ServiceAccountLookup:           true,
		ServiceAccountIssuers:          []string{issuer},
		ServiceAccountPublicKeysGetter: a.tokenKeys,
		ServiceAccountTokenGetter: serviceaccountcontroller.NewGetterFromClient(a.client, core.Secrets().Lister(),
			core.ServiceAccounts().Lister(), core.Pods().Lister(), core.Nodes().Lister()),
		SecretsWriter:        a.client.CoreV1(),
		TokenSuccessCacheTTL: tokenCache,
		APIServerID:          a.generic.APIServerID,
	}.New(ctx)
	if err != nil {
		return fmt.Errorf("authentication: %w", err)
	}
	info.Authenticator = roomy{rememberCertificates(request)}
	a.generic.OpenAPIConfig.SecurityDefinitions = securityV2
	a.generic.OpenAPIV3Config.SecuritySchemes = securityV3
	serviceaccount.RegisterMetrics()
	return nil
}

func tokenKeys(file string) (serviceaccount.PublicKeysGetter, error) {
	keys, err := keyutil.PublicKeysFromFile(file)
	if err != nil {
		return nil, err
	}
	return serviceaccount.StaticPublicKeysGetter(keys)
}

// discoverIssuer serves the documents by which others check our service account tokens (/.well-known, /openid).
func (a *assembly) discoverIssuer() error {
	p, err := serviceaccount.NewOpenIDMetadataProvider(issuer, "", a.generic.ExternalAddress, a.tokenKeys)
	if err != nil {
		return fmt.Errorf("token issuer's documents: %w", err)
	}
	routes.NewOpenIDMetadataServer(p).Install(a.server.Handler.GoRestfulContainer)
	return nil
}

// tokenIssuer signs the tokens that TokenRequest hands out.
func (a *assembly) tokenIssuer() (serviceaccount.TokenGenerator, error) {
	key, err := keyutil.PrivateKeyFromFile(a.options.PKI.ServiceAccountKeyFile())
	if err != nil {
		return nil, fmt.Errorf("service account key: %w", err)
	}
	return serviceaccount.JWTTokenGenerator(issuer, key)
}

// authorize asks the node authorizer, then RBAC. It is upstream's pkg/kubeapiserver/authorizer without the kinds that
// are not served here: an informer for one of those would never sync.
func (a *assembly) authorize() error {
	core, rbacv1, storage := a.informers.Core().V1(), a.informers.Rbac().V1(), a.informers.Storage().V1()
	node.RegisterMetrics()
	graph := node.NewGraph()
	node.AddGraphEventHandlers(graph, core.Nodes(), core.Pods(), core.PersistentVolumes(), storage.VolumeAttachments(), nil, nil)
	nodes := node.NewAuthorizer(graph, nodeidentifier.NewDefaultNodeIdentifier(), bootstrappolicy.NodeRules())
	roles := rbac.New(
		&rbac.RoleGetter{Lister: rbacv1.Roles().Lister()},
		&rbac.RoleBindingLister{Lister: rbacv1.RoleBindings().Lister()},
		&rbac.ClusterRoleGetter{Lister: rbacv1.ClusterRoles().Lister()},
		&rbac.ClusterRoleBindingLister{Lister: rbacv1.ClusterRoleBindings().Lister()},
	)
	a.generic.Authorization.Authorizer = union.New(
		authorizerfactory.NewPrivilegedGroups(user.SystemPrivilegedGroup),
		authorizationmetrics.InstrumentedAuthorizer("Node", "node", nodes),
		authorizationmetrics.InstrumentedAuthorizer("RBAC", "rbac", roles),
	)
	a.generic.RuleResolver = union.NewRuleResolvers(nodes, roles)
	return nil
}
