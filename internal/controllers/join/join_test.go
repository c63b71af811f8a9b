package join

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"pgregory.net/rapid"
)

const (
	forClient  = certificatesv1.KubeAPIServerClientKubeletSignerName
	forServing = certificatesv1.KubeletServingSignerName
)

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// ask is a request in the making; its zero fields are filled with what node "n1" would rightly send.
type ask struct {
	signer   string
	user     string
	groups   []string
	template *x509.CertificateRequest
	usages   []certificatesv1.KeyUsage
	key      crypto.Signer
	raw      []byte
}

func named(node string) *x509.CertificateRequest {
	return &x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:" + node, Organization: []string{"system:nodes"}}}
}

func (a ask) csr(t testing.TB, name string) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	if a.signer == "" {
		a.signer = forClient
	}
	if a.user == "" {
		a.user, a.groups = "system:bootstrap:abc123", []string{"system:bootstrappers", BootstrapGroup, "system:authenticated"}
	}
	if a.groups == nil {
		a.groups = []string{"system:nodes", "system:authenticated"}
	}
	if a.template == nil {
		a.template = named("n1")
	}
	if a.usages == nil {
		a.usages = []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth}
		if a.signer == forServing {
			a.usages[1] = certificatesv1.UsageServerAuth
		}
	}
	if a.key == nil {
		a.key = newKey(t)
	}
	if a.raw == nil {
		der, err := x509.CreateCertificateRequest(rand.Reader, a.template, a.key)
		if err != nil {
			t.Fatal(err)
		}
		a.raw = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	}
	return &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       certificatesv1.CertificateSigningRequestSpec{Request: a.raw, SignerName: a.signer, Username: a.user, Groups: a.groups, Usages: a.usages},
	}
}

func newApprover(t testing.TB, objects ...runtime.Object) (*Approver, *fake.Clientset) {
	t.Helper()
	client := fake.NewClientset(objects...)
	_, services, _ := net.ParseCIDR("10.43.0.0/16")
	a, err := New(Options{Client: client, Informers: informers.NewSharedInformerFactory(client, 0), ServiceCIDR: services})
	if err != nil {
		t.Fatal(err)
	}
	return a, client
}

// judge returns "" for an approval, else the reason of the refusal.
func judge(t testing.TB, a *Approver, csr *certificatesv1.CertificateSigningRequest) (reason, message string) {
	t.Helper()
	message, refused, err := a.judge(context.Background(), csr)
	if err != nil {
		t.Fatal(err)
	}
	if refused != nil {
		return refused.reason, refused.message
	}
	return "", message
}

func node(name string, addresses ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, a := range addresses {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
	}
	return n
}

func TestWhatAJoinTokenMayAskFor(t *testing.T) {
	other := func(change func(*x509.CertificateRequest)) *x509.CertificateRequest {
		r := named("n1")
		change(r)
		return r
	}
	badSignature := ask{}.csr(t, "x").Spec.Request
	block, _ := pem.Decode(badSignature)
	block.Bytes[len(block.Bytes)-1] ^= 1
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		ask  ask
		want string
	}{
		{"a node's client certificate", ask{}, ""},
		{"with an RSA key, and its usage", ask{key: rsaKey, usages: []certificatesv1.KeyUsage{certificatesv1.UsageKeyEncipherment, certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth}}, ""},
		{"a dotted name", ask{template: named("node-1.rack4.example.com")}, ""},
		{"no PEM", ask{raw: []byte("x")}, "MalformedRequest"},
		{"a certificate", ask{raw: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1}})}, "MalformedRequest"},
		{"no DER", ask{raw: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte{1}})}, "MalformedRequest"},
		{"two requests", ask{raw: append(ask{}.csr(t, "x").Spec.Request, ask{}.csr(t, "y").Spec.Request...)}, "MalformedRequest"},
		{"without the key", ask{raw: pem.EncodeToMemory(block)}, "MalformedRequest"},
		{"an administrator's certificate", ask{template: &x509.CertificateRequest{Subject: pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}}}, "WrongSubject"},
		{"a group more", ask{template: other(func(r *x509.CertificateRequest) {
			r.Subject.Organization = []string{"system:nodes", "system:masters"}
		})}, "WrongSubject"},
		{"no group", ask{template: other(func(r *x509.CertificateRequest) { r.Subject.Organization = nil })}, "WrongSubject"},
		{"no name", ask{template: named("")}, "InvalidNodeName"},
		{"capitals", ask{template: named("Node1")}, "InvalidNodeName"},
		{"a path", ask{template: named("../n1")}, "InvalidNodeName"},
		{"a long name", ask{template: named(strings.Repeat("a", 64))}, "InvalidNodeName"},
		{"the API server's name", ask{template: named("kubernetes.default.svc")}, "InvalidNodeName"},
		{"this machine's name", ask{template: named("localhost")}, "InvalidNodeName"},
		{"a server's usages", ask{usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth}}, "WrongUsages"},
		{"both usages", ask{usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth, certificatesv1.UsageServerAuth}}, "WrongUsages"},
		{"a CA's usage", ask{usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth, certificatesv1.UsageCertSign}}, "WrongUsages"},
		{"no usages", ask{usages: []certificatesv1.KeyUsage{}}, "WrongUsages"},
		{"DNS names", ask{template: other(func(r *x509.CertificateRequest) { r.DNSNames = []string{"n1"} })}, "UnexpectedNames"},
		{"a URI", ask{template: other(func(r *x509.CertificateRequest) { r.URIs = []*url.URL{{Scheme: "spiffe", Host: "x"}} })}, "UnexpectedNames"},
		{"a serving certificate", ask{signer: forServing, template: other(func(r *x509.CertificateRequest) { r.DNSNames = []string{"n1"} })}, "NotItself"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, client := newApprover(t)
			got, message := judge(t, a, c.ask.csr(t, "csr-1"))
			if got != c.want || message == "" {
				t.Errorf("got %q (%s), want %q", got, message, c.want)
			}
			nodes, _ := client.CoreV1().Nodes().List(context.Background(), metav1.ListOptions{})
			if reserved := len(nodes.Items) == 1; reserved != (c.want == "") {
				t.Errorf("reserved: %v", reserved)
			}
		})
	}
}

func TestANameIsReservedForOneKey(t *testing.T) {
	a, client := newApprover(t)
	key := newKey(t)
	if got, _ := judge(t, a, ask{key: key}.csr(t, "csr-1")); got != "" {
		t.Fatalf("refused: %s", got)
	}
	n, err := client.CoreV1().Nodes().Get(context.Background(), "n1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if n.Annotations[AnnotationCSR] != "csr-1" || len(n.Annotations) != 2 || len(n.Labels) != 0 {
		t.Errorf("metadata %+v", n.ObjectMeta)
	}
	if diff := cmp.Diff(corev1.NodeSpec{}, n.Spec); diff != "" {
		t.Errorf("the reservation says more than it knows:\n%s", diff)
	}
	if c := n.Status.Conditions; len(c) != 1 || c[0].Type != corev1.NodeReady || c[0].Status != corev1.ConditionFalse || c[0].LastHeartbeatTime.IsZero() {
		t.Errorf("conditions %v: without Ready=False the node lifecycle controller takes the not-ready taint away", c)
	}

	for name, c := range map[string]struct {
		key  crypto.Signer
		want string
	}{
		"the same request again":          {key, ""},
		"another request of the same key": {key, ""},
		"another machine":                 {newKey(t), "NodeNameTaken"},
	} {
		got, message := judge(t, a, ask{key: c.key}.csr(t, "csr-2"))
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if got != "" && !strings.Contains(message, "kubectl delete node n1") {
			t.Errorf("%s: does not say how to free the name: %s", name, message)
		}
	}

	if err := client.CoreV1().Nodes().Delete(context.Background(), "n1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, _ := judge(t, a, ask{}.csr(t, "csr-3")); got != "" {
		t.Errorf("the name was freed, and is refused: %s", got)
	}
}

func TestANodeThatNobodyReservedIsTaken(t *testing.T) {
	// Its annotation names a request that somebody with a token could make again.
	n := node("n1")
	n.Annotations = map[string]string{AnnotationCSR: "csr-1"}
	a, _ := newApprover(t, n)
	if got, _ := judge(t, a, ask{}.csr(t, "csr-1")); got != "NodeNameTaken" {
		t.Errorf("got %q", got)
	}
}

func TestWhatANodeMayAskFor(t *testing.T) {
	serving := func(change func(*x509.CertificateRequest)) *x509.CertificateRequest {
		r := named("n1")
		r.DNSNames, r.IPAddresses = []string{"n1"}, []net.IP{net.ParseIP("192.0.2.1"), net.IPv4(127, 0, 0, 1)}
		if change != nil {
			change(r)
		}
		return r
	}
	const me = "system:node:n1"
	for _, c := range []struct {
		name string
		ask  ask
		want string
	}{
		{"its renewal", ask{user: me}, ""},
		{"another node's certificate", ask{user: me, template: named("n2")}, "NotItself"},
		{"an administrator's", ask{user: me, template: &x509.CertificateRequest{Subject: pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}}}, "WrongSubject"},
		{"a renewal with names", ask{user: me, template: serving(nil)}, "UnexpectedNames"},
		{"a renewal of a deleted node", ask{user: "system:node:n9", template: named("n9")}, "NodeGone"},
		{"its serving certificate", ask{user: me, signer: forServing, template: serving(nil)}, ""},
		{"by name alone", ask{user: me, signer: forServing, template: serving(func(r *x509.CertificateRequest) { r.IPAddresses = nil })}, ""},
		{"by address alone", ask{user: me, signer: forServing, template: serving(func(r *x509.CertificateRequest) { r.DNSNames = nil })}, ""},
		{"for nothing", ask{user: me, signer: forServing, template: named("n1")}, "MissingNames"},
		{"another node's name", ask{user: me, signer: forServing, template: serving(func(r *x509.CertificateRequest) { r.DNSNames = []string{"n1", "n2"} })}, "ForeignName"},
		{"a wildcard", ask{user: me, signer: forServing, template: serving(func(r *x509.CertificateRequest) { r.DNSNames = []string{"*"} })}, "ForeignName"},
		{"the API server's name", ask{user: me, signer: forServing, template: serving(func(r *x509.CertificateRequest) { r.DNSNames = []string{"kubernetes"} })}, "ForeignName"},
		{"another node's address", ask{user: me, signer: forServing, template: serving(func(r *x509.CertificateRequest) {
			r.IPAddresses = append(r.IPAddresses, net.ParseIP("192.0.2.2"))
		})}, "ForeignAddress"},
		{"a service's address", ask{user: me, signer: forServing, template: serving(func(r *x509.CertificateRequest) { r.IPAddresses = []net.IP{net.ParseIP("10.43.0.1")} })}, "ForeignAddress"},
		{"an email address", ask{user: me, signer: forServing, template: serving(func(r *x509.CertificateRequest) { r.EmailAddresses = []string{"a@b"} })}, "UnexpectedNames"},
		{"client usages", ask{user: me, signer: forServing, template: serving(nil), usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth}}, "WrongUsages"},
		{"another node's serving certificate", ask{user: "system:node:n2", signer: forServing, template: serving(nil)}, "NotItself"},
		{"a deleted node's serving certificate", ask{user: "system:node:n9", signer: forServing, template: func() *x509.CertificateRequest {
			r := named("n9")
			r.DNSNames = []string{"n9"}
			return r
		}()}, "NodeGone"},
	} {
		t.Run(c.name, func(t *testing.T) {
			// n1 claims a service address; a claim does not make it so.
			a, _ := newApprover(t, node("n1", "192.0.2.1", "10.43.0.1"), node("n2", "192.0.2.2"))
			if got, message := judge(t, a, c.ask.csr(t, "csr-1")); got != c.want || message == "" {
				t.Errorf("got %q (%s), want %q", got, message, c.want)
			}
		})
	}
}

// TestAMachineWhoseCertificateRanOutComesBack joins, renews, and joins again with the key of the renewal.
func TestAMachineWhoseCertificateRanOutComesBack(t *testing.T) {
	a, _ := newApprover(t)
	first, second := newKey(t), newKey(t)
	for _, step := range []struct {
		what string
		ask  ask
		want string
	}{
		{"join", ask{key: first}, ""},
		{"renewal", ask{user: "system:node:n1", key: second}, ""},
		{"join with the renewal's key", ask{key: second}, ""},
		{"join with the key before", ask{key: first}, "NodeNameTaken"},
	} {
		if got, _ := judge(t, a, step.ask.csr(t, "csr")); got != step.want {
			t.Errorf("%s: %q, want %q", step.what, got, step.want)
		}
	}
}

func TestOnlyTheTwoSortsOfRequestersAreJudged(t *testing.T) {
	for _, c := range []struct {
		name string
		ask  ask
		want bool
	}{
		{"a join token", ask{}, true},
		{"a node", ask{user: "system:node:n1"}, true},
		{"an administrator, whom people answer", ask{user: "admin", groups: []string{"system:masters"}}, false},
		{"another tool's bootstrap token", ask{user: "system:bootstrap:zzzzzz", groups: []string{"system:bootstrappers", "system:bootstrappers:kubeadm"}}, false},
		{"in nodes' group, but no node", ask{user: "x", groups: []string{"system:nodes"}}, false},
		{"another signer", ask{signer: "kubernetes.io/kube-apiserver-client"}, false},
	} {
		if got := concerns(c.ask.csr(t, "x")); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestTroubleIsNotARefusal(t *testing.T) {
	boom := errors.New("boom")
	for _, verb := range []string{"create", "get", "patch"} {
		a, client := newApprover(t, node("n1", "192.0.2.1"))
		client.PrependReactor(verb, "nodes", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, boom })
		asked := ask{}
		switch verb {
		case "patch":
			asked.user = "system:node:n1"
		case "get":
			asked.user, asked.signer, asked.template = "system:node:n1", forServing, &x509.CertificateRequest{Subject: named("n1").Subject, DNSNames: []string{"n1"}}
		}
		if _, refused, err := a.judge(context.Background(), asked.csr(t, "x")); refused != nil || !errors.Is(err, boom) {
			t.Errorf("%s: %v, %v", verb, refused, err)
		}
	}
}

// TestAtMostOneKeyGetsAName: whatever machines ask for names in whatever order, with whatever trouble on the way, no
// name is given to two keys unless its Node was deleted in between.
func TestAtMostOneKeyGetsAName(t *testing.T) {
	keys := []crypto.Signer{newKey(t), newKey(t), newKey(t)}
	rapid.Check(t, func(r *rapid.T) {
		a, client := newApprover(t)
		holder := map[string]int{}
		fail := false
		client.PrependReactor("*", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) {
			return fail, nil, errors.New("trouble")
		})
		for range rapid.IntRange(1, 15).Draw(r, "steps") {
			name := fmt.Sprintf("n%d", rapid.IntRange(0, 1).Draw(r, "node"))
			if rapid.IntRange(0, 5).Draw(r, "what") == 0 {
				if err := client.CoreV1().Nodes().Delete(context.Background(), name, metav1.DeleteOptions{}); err == nil {
					delete(holder, name)
				}
				continue
			}
			who := rapid.IntRange(0, len(keys)-1).Draw(r, "key")
			fail = rapid.IntRange(0, 3).Draw(r, "trouble") == 0
			_, refused, err := a.judge(context.Background(), ask{key: keys[who], template: named(name)}.csr(t, "csr"))
			fail = false
			held, taken := holder[name]
			switch {
			case err != nil:
			case refused == nil && taken && held != who:
				r.Fatalf("%s was given to key %d, and is key %d's", name, who, held)
			case refused == nil:
				holder[name] = who
			case !taken || held == who:
				r.Fatalf("key %d was refused %s: %s", who, name, refused.message)
			}
		}
	})
}

func TestRunAnswersEachRequestOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		taken := ask{template: named("n2")}.csr(t, "taken")
		client := fake.NewClientset(node("n2"), taken)
		factory := informers.NewSharedInformerFactory(client, 0)
		a, err := New(Options{Client: client, Informers: factory})
		if err != nil {
			t.Fatal(err)
		}
		conflicts := 1
		client.PrependReactor("update", "certificatesigningrequests", func(clienttesting.Action) (bool, runtime.Object, error) {
			conflicts--
			return conflicts >= 0, nil, apierrors.NewConflict(certificatesv1.Resource("certificatesigningrequests"), "x", errors.New("changed"))
		})
		factory.Start(ctx.Done())
		done := make(chan error)
		go func() { done <- a.Run(ctx) }()

		csrs := client.CertificatesV1().CertificateSigningRequests()
		for _, csr := range []*certificatesv1.CertificateSigningRequest{ask{}.csr(t, "free"), ask{user: "admin", groups: []string{"x"}}.csr(t, "foreign")} {
			if _, err := csrs.Create(ctx, csr, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		for name, want := range map[string]string{"free": "Approved EverynodeApproved", "taken": "Denied NodeNameTaken", "foreign": ""} {
			csr, err := csrs.Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, c := range csr.Status.Conditions {
				got = append(got, fmt.Sprintf("%s %s", c.Type, c.Reason))
			}
			if strings.Join(got, ",") != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		factory.Shutdown()
	})
}

func TestOptionsValidate(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("made without a client")
	}
}
