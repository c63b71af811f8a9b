package apiserver

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/keyutil"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/serviceaccount"
)

func TestAnonymous(t *testing.T) {
	c := shared(t)
	nobody := clientFor(t, c.bearer(t, ""))
	if _, err := nobody.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("anonymous list of pods: %v", err)
	}
	for _, path := range []string{"/livez", "/readyz", "/healthz", "/version"} {
		if err := nobody.RESTClient().Get().AbsPath(path).Do(t.Context()).Error(); err != nil {
			t.Errorf("anonymous %s: %v", path, err)
		}
	}
	for _, path := range []string{"/metrics", "/api", "/logs", "/debug/pprof/"} {
		if err := nobody.RESTClient().Get().AbsPath(path).Do(t.Context()).Error(); !apierrors.IsForbidden(err) {
			t.Errorf("anonymous %s: %v", path, err)
		}
	}
	if _, err := clientFor(t, c.bearer(t, "abcdef.0123456789abcdef")).Discovery().ServerVersion(); !apierrors.IsUnauthorized(err) {
		t.Errorf("an unknown token: %v", err)
	}
}

// A service account may do what its roles say, and nothing else; and so its tokens.
func TestServiceAccount(t *testing.T) {
	t.Parallel() // it waits for the token cache
	c := shared(t)
	ctx, admin := t.Context(), c.admin(t)
	ns := c.namespace(t, nil)
	token := requestToken(t, admin, ns, "default", nil)
	client := clientFor(t, c.bearer(t, token))

	who, err := client.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := who.Status.UserInfo.Username, "system:serviceaccount:"+ns+":default"; got != want {
		t.Errorf("the token is %s's, want %s", got, want)
	}
	if _, err := client.CoreV1().ConfigMaps(ns).List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("before it has a role: %v", err)
	}
	grant(t, admin, ns, "default", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"list"}})
	eventually(t, "the role takes effect", func(ctx context.Context) error {
		_, err := client.CoreV1().ConfigMaps(ns).List(ctx, metav1.ListOptions{})
		return err
	})
	if _, err := client.CoreV1().Secrets(ns).List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("another kind: %v", err)
	}
	if _, err := client.CoreV1().ConfigMaps("kube-system").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("another namespace: %v", err)
	}
	can := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: ns, Verb: "list", Resource: "configmaps"}}}
	review, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, can, metav1.CreateOptions{})
	if err != nil || !review.Status.Allowed {
		t.Errorf("auth can-i: %v, %v", review, err)
	}
	// Nobody can give more than they have.
	_, err = client.RbacV1().Roles(ns).Create(ctx, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "more"}}, metav1.CreateOptions{})
	if !apierrors.IsForbidden(err) {
		t.Errorf("making a role: %v", err)
	}

	if err := admin.CoreV1().ServiceAccounts(ns).Delete(ctx, "default", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the token ends with its service account", func(ctx context.Context) error {
		_, err := client.CoreV1().ConfigMaps(ns).List(ctx, metav1.ListOptions{})
		if !apierrors.IsUnauthorized(err) {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})
}

func TestTokens(t *testing.T) {
	t.Parallel() // it waits for the token cache
	c := shared(t)
	ctx, admin := t.Context(), c.admin(t)
	ns := c.namespace(t, nil)
	unauthorized := func(what, token string) {
		t.Helper()
		if _, err := clientFor(t, c.bearer(t, token)).Discovery().ServerVersion(); !apierrors.IsUnauthorized(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	unauthorized("a token for somebody else", requestToken(t, admin, ns, "default", &authenticationv1.TokenRequestSpec{Audiences: []string{"vault"}}))

	p, err := admin.CoreV1().Pods(ns).Create(ctx, pod("p", ""), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	bound := requestToken(t, admin, ns, "default", &authenticationv1.TokenRequestSpec{
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "p", UID: p.UID}})
	review, err := admin.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: bound}}, metav1.CreateOptions{})
	if err != nil || !review.Status.Authenticated || review.Status.User.Extra["authentication.kubernetes.io/pod-name"][0] != "p" {
		t.Errorf("review of the pod's token: %+v, %v", review, err)
	}
	if err := admin.CoreV1().Pods(ns).Delete(ctx, "p", *metav1.NewDeleteOptions(0)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pod's token ends with the pod", func(ctx context.Context) error {
		if _, err := clientFor(t, c.bearer(t, bound)).Discovery().ServerVersion(); !apierrors.IsUnauthorized(err) {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})

	sa, err := admin.CoreV1().ServiceAccounts(ns).Get(ctx, "default", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	unauthorized("an expired token", signToken(t, c, sa, time.Now().Add(-2*time.Minute))) // a minute of clock skew is allowed
	if _, err := clientFor(t, c.bearer(t, signToken(t, c, sa, time.Now().Add(time.Minute)))).Discovery().ServerVersion(); err != nil {
		t.Errorf("the same token before it expires: %v", err)
	}
}

// signToken is what TokenRequest does, with any end; it gives ten minutes at least.
func signToken(t *testing.T, c *cluster, sa *corev1.ServiceAccount, end time.Time) string {
	t.Helper()
	key, err := keyutil.PrivateKeyFromFile(c.pki.ServiceAccountKeyFile())
	if err != nil {
		t.Fatal(err)
	}
	generator, err := serviceaccount.JWTTokenGenerator(issuer, key)
	if err != nil {
		t.Fatal(err)
	}
	claims, private, err := serviceaccount.Claims(api.ServiceAccount{ObjectMeta: sa.ObjectMeta}, nil, nil, nil, int64(time.Until(end).Seconds()), 0, []string{issuer})
	if err != nil {
		t.Fatal(err)
	}
	token, err := generator.GenerateToken(t.Context(), claims, private)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func requestToken(t *testing.T, admin kubernetes.Interface, ns, name string, spec *authenticationv1.TokenRequestSpec) string {
	t.Helper()
	if spec == nil {
		spec = &authenticationv1.TokenRequestSpec{}
	}
	r, err := admin.CoreV1().ServiceAccounts(ns).CreateToken(t.Context(), name, &authenticationv1.TokenRequest{Spec: *spec}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r.Status.Token
}

func grant(t *testing.T, admin kubernetes.Interface, ns, account string, rules ...rbacv1.PolicyRule) {
	t.Helper()
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Rules: rules}
	if _, err := admin.RbacV1().Roles(ns).Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "r"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "r"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: account, Namespace: ns}},
	}
	if _, err := admin.RbacV1().RoleBindings(ns).Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// A node sees and changes what belongs to it, and no more.
func TestNode(t *testing.T) {
	c := shared(t)
	ctx, admin := t.Context(), c.admin(t)
	ns := c.namespace(t, nil)
	self := clientFor(t, c.as(t, "system:node:node-a", "system:nodes"))
	for _, name := range []string{"mine", "other"} {
		if _, err := admin.CoreV1().Secrets(ns).Create(ctx, secret(name), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := admin.CoreV1().Nodes().Create(ctx, newNode("node-b"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	a, err := self.CoreV1().Nodes().Create(ctx, newNode("node-a"), metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("registering itself: %v", err)
	}
	if len(a.Spec.Taints) != 1 || a.Spec.Taints[0].Key != "node.kubernetes.io/not-ready" {
		t.Errorf("a new node is tainted %v", a.Spec.Taints)
	}
	p := pod("p", "node-a")
	p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "mine"}}}}
	if _, err := admin.CoreV1().Pods(ns).Create(ctx, p, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}

	eventually(t, "its pod's secret", func(ctx context.Context) error {
		_, err := self.CoreV1().Secrets(ns).Get(ctx, "mine", metav1.GetOptions{})
		return err
	})
	one := metav1.ListOptions{FieldSelector: "spec.nodeName=node-a"}
	if pods, err := self.CoreV1().Pods("").List(ctx, one); err != nil || len(pods.Items) != 1 {
		t.Errorf("its pods: %v, %v", pods, err)
	}
	if _, err := self.CoreV1().ServiceAccounts(ns).CreateToken(ctx, "default", &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "p", UID: podUID(t, admin, ns, "p")},
	}}, metav1.CreateOptions{}); err != nil {
		t.Errorf("a token for its pod: %v", err)
	}
	b, err := admin.CoreV1().Nodes().Get(ctx, "node-b", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for what, do := range map[string]func() error{
		"another's secret":      func() error { _, err := self.CoreV1().Secrets(ns).Get(ctx, "other", metav1.GetOptions{}); return err },
		"all secrets":           func() error { _, err := self.CoreV1().Secrets(ns).List(ctx, metav1.ListOptions{}); return err },
		"another node's status": func() error { _, err := self.CoreV1().Nodes().UpdateStatus(ctx, b, metav1.UpdateOptions{}); return err },
		"a pod for another node": func() error {
			_, err := self.CoreV1().Pods(ns).Create(ctx, pod("q", "node-b"), metav1.CreateOptions{})
			return err
		},
		"an unbound token": func() error {
			_, err := self.CoreV1().ServiceAccounts(ns).CreateToken(ctx, "default", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
			return err
		},
		"a DaemonSet": func() error {
			_, err := self.AppsV1().DaemonSets(ns).Create(ctx, daemonSet("d"), metav1.CreateOptions{})
			return err
		},
	} {
		if err := do(); !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func podUID(t *testing.T, client kubernetes.Interface, ns, name string) types.UID {
	t.Helper()
	p, err := client.CoreV1().Pods(ns).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return p.UID
}

// A join token is good for asking for a certificate, and for nothing else.
func TestBootstrapToken(t *testing.T) {
	t.Parallel() // it waits for the token cache
	c := shared(t)
	ctx, admin := t.Context(), c.admin(t)
	token := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "bootstrap-token-abcdef"},
		Type:       corev1.SecretTypeBootstrapToken,
		StringData: map[string]string{
			"token-id": "abcdef", "token-secret": "fedcba9876543210", "usage-bootstrap-authentication": "true",
			"auth-extra-groups": "system:bootstrappers:everynode", "expiration": time.Now().Add(time.Hour).UTC().Format(time.RFC3339),
		},
	}
	if _, err := admin.CoreV1().Secrets("kube-system").Create(ctx, token, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	joiner := clientFor(t, c.bearer(t, "abcdef.fedcba9876543210"))
	csr := &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "joiner"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: nodeRequest(t, "joiner"), SignerName: certificatesv1.KubeAPIServerClientKubeletSignerName,
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
		},
	}
	eventually(t, "a request", func(ctx context.Context) error {
		_, err := joiner.CertificatesV1().CertificateSigningRequests().Create(ctx, csr, metav1.CreateOptions{})
		return err
	})
	got, err := joiner.CertificatesV1().CertificateSigningRequests().Get(ctx, "joiner", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got.Spec.Username != "system:bootstrap:abcdef" {
		t.Errorf("the request is %s's", got.Spec.Username)
	}
	for what, do := range map[string]func() error{
		"approval": func() error {
			_, err := joiner.CertificatesV1().CertificateSigningRequests().UpdateApproval(ctx, "joiner", got, metav1.UpdateOptions{})
			return err
		},
		"nodes": func() error { _, err := joiner.CoreV1().Nodes().List(ctx, metav1.ListOptions{}); return err },
		"secrets": func() error {
			_, err := joiner.CoreV1().Secrets("kube-system").List(ctx, metav1.ListOptions{})
			return err
		},
		"a node": func() error {
			_, err := joiner.CoreV1().Nodes().Create(ctx, newNode("joiner"), metav1.CreateOptions{})
			return err
		},
	} {
		if err := do(); !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := admin.CoreV1().Secrets("kube-system").Delete(ctx, token.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "revocation", func(ctx context.Context) error {
		if _, err := clientFor(t, c.bearer(t, "abcdef.fedcba9876543210")).Discovery().ServerVersion(); !apierrors.IsUnauthorized(err) {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})
}

func nodeRequest(t *testing.T, name string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "system:node:" + name, Organization: []string{"system:nodes"}}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// The dialer finds an agent that listens on loopback only, but only one of this machine.
func TestAgentDialer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	elsewhere := net.JoinHostPort("127.0.0.9", port) // refuses
	for own, reached := range map[bool]bool{true: true, false: false} {
		conn, err := agentDialer{func(net.IP) bool { return own }}.dial(t.Context(), "tcp", elsewhere)
		if (err == nil) != reached {
			t.Errorf("own address %v: %v", own, err)
		}
		if err == nil {
			_ = conn.Close()
		}
	}
	if ownAddress(net.ParseIP("127.0.0.1")) || ownAddress(net.ParseIP("192.0.2.1")) || ownAddress(nil) {
		t.Error("takes another's address for its own")
	}
}

// Logs come from the agent over TLS that both sides check.
func TestLogs(t *testing.T) {
	c := shared(t)
	ctx, admin := t.Context(), c.admin(t)
	ns := c.namespace(t, nil)
	seen := make(chan string, 1)
	agent := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r.TLS.PeerCertificates[0].Subject.String() + " " + r.URL.Path
		_, _ = io.WriteString(w, "a line\n")
	}))
	roots := x509.NewCertPool()
	roots.AddCert(parseCertificate(t, c.pki.CACert()))
	agent.TLS = &tls.Config{Certificates: []tls.Certificate{agentCertificate(t, c)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots}
	agent.StartTLS()
	defer agent.Close()

	n, err := admin.CoreV1().Nodes().Create(ctx, newNode("node-logs"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}}
	n.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(agent.Listener.Addr().(*net.TCPAddr).Port)
	if _, err := admin.CoreV1().Nodes().UpdateStatus(ctx, n, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.CoreV1().Pods(ns).Create(ctx, pod("p", "node-logs"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	out, err := admin.CoreV1().Pods(ns).GetLogs("p", &corev1.PodLogOptions{}).DoRaw(ctx)
	if err != nil || string(out) != "a line\n" {
		t.Fatalf("logs: %q, %v", out, err)
	}
	if got, want := <-seen, "CN=kube-apiserver-kubelet-client,O=everynode:kubelet-admins /containerLogs/"+ns+"/p/c"; got != want {
		t.Errorf("the agent saw %q, want %q", got, want)
	}
}

// agentCertificate is a serving certificate for 127.0.0.1 as the server's signer would give it.
func agentCertificate(t *testing.T, c *cluster) tls.Certificate {
	t.Helper()
	ca, err := tls.LoadX509KeyPair(c.pki.CACertFile(), c.pki.CAKeyFile())
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "system:node:node-logs", Organization: []string{"system:nodes"}},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parseCertificate(t, c.pki.CACert()), key.Public(), ca.PrivateKey.(crypto.Signer))
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// The serving certificate is read again when its file changes.
func TestCertificateReload(t *testing.T) {
	c := run(t, t.TempDir())
	address := c.server.Address().String()
	before := handshake(t, address)[0]
	if _, _, err := c.pki.Serving([]string{"another.example.org", "localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "new certificate", func(context.Context) error {
		if now := handshake(t, address)[0]; now.Equal(before) || now.VerifyHostname("another.example.org") != nil {
			return errors.New("still the old one")
		}
		return nil
	})
}

func TestDataDirIsPrivate(t *testing.T) {
	c := shared(t)
	for _, name := range []string{c.pki.CAKeyFile(), c.pki.ServiceAccountKeyFile()} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %o", name, info.Mode().Perm())
		}
	}
	if strings.HasPrefix(c.server.ClientConfig().Host, "http:") {
		t.Error("in-process clients use plain HTTP")
	}
}
