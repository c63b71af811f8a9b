package integration

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	certutil "k8s.io/client-go/util/cert"

	"github.com/everynode/everynode/internal/agent/identity"
	"github.com/everynode/everynode/internal/apiserver/tokens"
	"github.com/everynode/everynode/internal/jointoken"
)

// TestJoining takes machines through their life: join, serve, renew, lose the name, be locked out.
func TestJoining(t *testing.T) {
	c := start(t)
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Minute)
	defer stop()
	file := &tokens.File{Client: c, Path: filepath.Join(t.TempDir(), "join-token"), CAHash: c.bundle.CAHash()}
	kept := make(chan error, 1)
	keep, stopKeeping := context.WithCancel(ctx)
	go func() { kept <- file.Keep(keep) }()
	defer func() {
		stopKeeping()
		if err := <-kept; err != nil {
			t.Error(err)
		}
	}()
	machine := func(node string) identity.Options {
		return identity.Options{Server: "https://" + c.server.Address().String(), TokenFile: file.Path, NodeName: node, Dir: filepath.Join(t.TempDir(), "pki")}
	}

	// The token file appears while the first machine waits for it.
	first := machine("edge-1")
	began := time.Now()
	id, err := obtain(ctx, first)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("joined after %v", time.Since(began).Round(time.Millisecond))
	client := kubernetes.NewForConfigOrDie(id.Config())

	node, err := client.CoreV1().Nodes().Get(ctx, "edge-1", metav1.GetOptions{})
	if err != nil {
		t.Fatalf("the node may not read itself: %v", err)
	}
	// The controllers come around several times, and leave the taint on a name that is only reserved.
	for range 50 {
		if !slices.ContainsFunc(node.Spec.Taints, func(taint corev1.Taint) bool {
			return taint.Key == corev1.TaintNodeNotReady && taint.Effect == corev1.TaintEffectNoSchedule
		}) {
			t.Fatalf("pods would be sent to a name that is only reserved: taints %v, conditions %v", node.Spec.Taints, node.Status.Conditions)
		}
		time.Sleep(20 * time.Millisecond)
		if node, err = client.CoreV1().Nodes().Get(ctx, "edge-1", metav1.GetOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.CoreV1().Secrets("kube-system").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("the node lists secrets: %v", err)
	}

	t.Run("the serving certificate is for the node's own addresses", func(t *testing.T) {
		soon, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if err := id.Serving(soon, []net.IP{net.ParseIP("192.0.2.1")}); err == nil {
			t.Error("granted for an address that the Node does not have")
		}
		patch := []byte(`{"status":{"addresses":[{"type":"InternalIP","address":"192.0.2.1"}]}}`)
		if _, err := client.CoreV1().Nodes().PatchStatus(ctx, "edge-1", patch); err != nil {
			t.Fatal(err)
		}
		if err := id.Serving(ctx, []net.IP{net.ParseIP("192.0.2.1")}); err != nil {
			t.Fatal(err)
		}
		pair, err := id.ServingCertificate()(nil)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(c.bundle.CACert())
		for _, name := range []string{"edge-1", "192.0.2.1", "127.0.0.1"} {
			if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})

	t.Run("a node renews itself, and no other", func(t *testing.T) {
		for name, want := range map[string]certificatesv1.RequestConditionType{"edge-1": certificatesv1.CertificateApproved, "edge-2": certificatesv1.CertificateDenied} {
			if got := verdict(ctx, t, client, pkix.Name{CommonName: "system:node:" + name, Organization: []string{"system:nodes"}}); got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
		}
	})

	t.Run("a token gives a node's certificate and nothing else", func(t *testing.T) {
		holder := kubernetes.NewForConfigOrDie(&rest.Config{Host: first.Server, BearerToken: token(t, file).Bearer(), TLSClientConfig: rest.TLSClientConfig{CAData: c.bundle.CACert()}})
		if _, err := holder.CoreV1().Nodes().List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("it lists nodes: %v", err)
		}
		if _, err := holder.CoreV1().Secrets("kube-system").Get(ctx, "bootstrap-token-"+token(t, file).ID, metav1.GetOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("it reads secrets: %v", err)
		}
		if got := verdict(ctx, t, holder, pkix.Name{CommonName: "system:node:edge-1", Organization: []string{"system:nodes", "system:masters"}}); got != certificatesv1.CertificateDenied {
			t.Errorf("an administrator's certificate: %s", got)
		}
	})

	t.Run("a taken name is refused until its Node is deleted", func(t *testing.T) {
		second := machine("edge-1")
		if _, err := obtain(ctx, second); err == nil || !strings.Contains(err.Error(), "kubectl delete node edge-1") {
			t.Errorf("%v", err)
		}
		if err := c.CoreV1().Nodes().Delete(ctx, "edge-1", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := obtain(ctx, second); err != nil {
			t.Error(err)
		}
	})

	t.Run("a revoked token is worth nothing", func(t *testing.T) {
		copied := machine("edge-3")
		copied.TokenFile = filepath.Join(t.TempDir(), "copy")
		revoked := token(t, file)
		if err := os.WriteFile(copied.TokenFile, []byte(revoked.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := tokens.Revoke(ctx, c, revoked.ID); err != nil {
			t.Fatal(err)
		}
		// The server remembers for some seconds whom it has let in.
		holder := kubernetes.NewForConfigOrDie(&rest.Config{Host: first.Server, BearerToken: revoked.Bearer(), TLSClientConfig: rest.TLSClientConfig{CAData: c.bundle.CACert()}})
		await(t, "revoked", func() (bool, string) {
			_, err := holder.CertificatesV1().CertificateSigningRequests().List(ctx, metav1.ListOptions{})
			return apierrors.IsUnauthorized(err), fmt.Sprint(err)
		})
		if _, err := obtain(ctx, copied); err == nil || !strings.Contains(err.Error(), "does not accept join token "+revoked.ID) {
			t.Errorf("%v", err)
		}
		if _, err := obtain(ctx, first); err != nil {
			t.Errorf("a node that has joined needs it no more: %v", err)
		}
	})

	t.Run("the chain that agents pin holds", func(t *testing.T) {
		conn, err := tls.Dial("tcp", c.server.Address().String(), &tls.Config{InsecureSkipVerify: true}) // its chain is looked at, nothing is sent
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		chain := conn.ConnectionState().PeerCertificates
		if last := chain[len(chain)-1]; jointoken.HashDER(last.Raw) != c.bundle.CAHash() {
			t.Errorf("the last of %d certificates is %s", len(chain), last.Subject)
		}
	})
}

func token(t *testing.T, f *tokens.File) jointoken.Token {
	t.Helper()
	data, err := os.ReadFile(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := jointoken.Parse(string(data))
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// verdict asks for a client certificate and waits for the answer.
func verdict(ctx context.Context, t *testing.T, client kubernetes.Interface, subject pkix.Name) certificatesv1.RequestConditionType {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request, err := certutil.MakeCSRFromTemplate(key, &x509.CertificateRequest{Subject: subject})
	if err != nil {
		t.Fatal(err)
	}
	csrs := client.CertificatesV1().CertificateSigningRequests()
	csr, err := csrs.Create(ctx, &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}, Spec: certificatesv1.CertificateSigningRequestSpec{
		Request: request, SignerName: certificatesv1.KubeAPIServerClientKubeletSignerName,
		Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth}}}, metav1.CreateOptions{})
	if err != nil {
		if apierrors.IsForbidden(err) || apierrors.IsInvalid(err) {
			return certificatesv1.CertificateDenied // admission was faster
		}
		t.Fatal(err)
	}
	await(t, "a verdict on "+csr.Name, func() (bool, string) {
		csr, err = csrs.Get(ctx, csr.Name, metav1.GetOptions{})
		return err == nil && len(csr.Status.Conditions) > 0, fmt.Sprint(csr.Status.Conditions, err)
	})
	return csr.Status.Conditions[0].Type
}

// obtain joins, or says why that is hopeless. The identity is kept fresh until ctx ends.
func obtain(ctx context.Context, o identity.Options) (*identity.Identity, error) {
	p, err := identity.New(o)
	if err != nil {
		return nil, err
	}
	failed := make(chan error, 1)
	go func() { failed <- p.Run(ctx) }()
	select {
	case <-p.Ready():
		return p.Identity(ctx), nil
	case err := <-failed:
		return nil, err
	}
}
