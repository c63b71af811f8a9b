package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/everynode/everynode/internal/jointoken"
)

// authority is a CA, with the serial numbers it has given out.
type authority struct {
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	serial atomic.Int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{key: newECKey(t)}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test-ca"}, NotBefore: time.Now().Add(-24 * 365 * time.Hour), NotAfter: time.Now().Add(24 * 365 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

func newECKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) hash() string { return jointoken.HashDER(a.cert.Raw) }

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func (a *authority) sign(template *x509.Certificate, public any) ([]byte, error) {
	template.SerialNumber = big.NewInt(a.serial.Add(1) + 1)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	return x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
}

// fakeServer is as much of an API server as an agent meets before it is a node: the handshake, /readyz, and
// certificate requests, which it judges as internal/controllers/join does, by the key that holds a name.
type fakeServer struct {
	*httptest.Server
	ca    *authority
	token jointoken.Token

	mu sync.Mutex
	// What the test wants it to be like.
	leaf      x509.Certificate // of the serving certificate
	sendCA    *authority       // the CA in the chain
	clock     time.Duration    // how far ahead its clock is
	unready   bool
	undecided bool // requests stay pending
	revoked   bool // the token is not accepted
	forbidden bool
	life      time.Duration // of the certificates it signs
	// What it has seen.
	holders map[string]string // node name → key that holds it
	csrs    map[string]*certificatesv1.CertificateSigningRequest
	order   []string
	peers   []*x509.Certificate // client certificates of requests
}

func newServer(t *testing.T) *fakeServer {
	t.Helper()
	s := &fakeServer{ca: newAuthority(t), holders: map[string]string{}, csrs: map[string]*certificatesv1.CertificateSigningRequest{}, life: time.Hour}
	s.sendCA = s.ca
	s.token = jointoken.Token{CAHash: s.ca.hash(), ID: "abc123", Secret: "0123456789abcdef"}
	s.leaf = x509.Certificate{Subject: pkix.Name{CommonName: "everynode-apiserver"}, DNSNames: []string{"kubernetes"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	key := newECKey(t)
	s.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		leaf := s.leaf
		der, err := s.ca.sign(&leaf, key.Public())
		return &tls.Config{ClientAuth: tls.RequestClientCert, NextProtos: []string{"h2", "http/1.1"},
			Certificates: []tls.Certificate{{Certificate: [][]byte{der, s.sendCA.cert.Raw}, PrivateKey: key}}}, err
	}}
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// set changes what the server is like.
func (s *fakeServer) set(change func(*fakeServer)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

func (s *fakeServer) seen() (requests []*certificatesv1.CertificateSigningRequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range s.order {
		requests = append(requests, s.csrs[name].DeepCopy())
	}
	return requests
}

func (s *fakeServer) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Date", time.Now().Add(s.clock).UTC().Format(http.TimeFormat))
	if len(r.TLS.PeerCertificates) > 0 {
		s.peers = append(s.peers, r.TLS.PeerCertificates[0])
	}
	const csrs = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
	name, one := strings.CutPrefix(r.URL.Path, csrs+"/")
	switch {
	case r.URL.Path == "/readyz" && s.unready:
		w.WriteHeader(http.StatusInternalServerError)
	case r.URL.Path == "/readyz":
	case !strings.HasPrefix(r.URL.Path, csrs):
		reply(w, apierrors.NewNotFound(corev1.Resource("x"), r.URL.Path))
	case !s.known(r):
		reply(w, apierrors.NewUnauthorized("Unauthorized"))
	case s.forbidden:
		reply(w, apierrors.NewForbidden(certificatesv1.Resource("certificatesigningrequests"), "", fmt.Errorf("no")))
	case r.Method == http.MethodPost:
		s.create(w, r)
	case one && s.csrs[name] == nil:
		reply(w, apierrors.NewNotFound(certificatesv1.Resource("certificatesigningrequests"), name))
	case one:
		s.judge(s.csrs[name])
		reply(w, s.csrs[name])
	case r.URL.Query().Get("watch") != "":
		reply(w, apierrors.NewBadRequest("no watches here"))
	default:
		s.list(w, strings.TrimPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name="))
	}
}

func (s *fakeServer) known(r *http.Request) bool {
	if peers := r.TLS.PeerCertificates; len(peers) > 0 {
		_, err := peers[0].Verify(x509.VerifyOptions{Roots: s.ca.pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		return err == nil
	}
	return !s.revoked && r.Header.Get("Authorization") == "Bearer "+s.token.Bearer()
}

func (s *fakeServer) create(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	obj, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, nil)
	if err != nil {
		reply(w, apierrors.NewBadRequest(err.Error()))
		return
	}
	csr := obj.(*certificatesv1.CertificateSigningRequest)
	csr.Name = fmt.Sprintf("%s%d", csr.GenerateName, len(s.csrs))
	csr.UID, csr.ResourceVersion = "uid", "1"
	if len(r.TLS.PeerCertificates) > 0 {
		csr.Spec.Username = r.TLS.PeerCertificates[0].Subject.CommonName
	}
	s.csrs[csr.Name], s.order = csr, append(s.order, csr.Name)
	reply(w, csr)
}

func (s *fakeServer) list(w http.ResponseWriter, name string) {
	list := &certificatesv1.CertificateSigningRequestList{TypeMeta: metav1.TypeMeta{Kind: "CertificateSigningRequestList", APIVersion: "certificates.k8s.io/v1"},
		ListMeta: metav1.ListMeta{ResourceVersion: "1"}}
	if csr := s.csrs[name]; csr != nil {
		s.judge(csr)
		list.Items = append(list.Items, *csr)
	}
	reply(w, list)
}

func (s *fakeServer) judge(csr *certificatesv1.CertificateSigningRequest) {
	if s.undecided || len(csr.Status.Conditions) > 0 {
		return
	}
	block, _ := pem.Decode(csr.Spec.Request)
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		panic(err)
	}
	key := string(request.RawSubjectPublicKeyInfo)
	template := &x509.Certificate{Subject: request.Subject, NotBefore: time.Now().Add(s.clock - 5*time.Minute), NotAfter: time.Now().Add(s.clock + s.life),
		DNSNames: request.DNSNames, IPAddresses: request.IPAddresses, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	verdict := certificatesv1.CertificateSigningRequestCondition{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue}
	if csr.Spec.SignerName == certificatesv1.KubeAPIServerClientKubeletSignerName {
		template.ExtKeyUsage[0] = x509.ExtKeyUsageClientAuth
		if holder, taken := s.holders[request.Subject.CommonName]; taken && holder != key && csr.Spec.Username != request.Subject.CommonName {
			verdict.Type, verdict.Message = certificatesv1.CertificateDenied, "node name is taken"
		} else {
			s.holders[request.Subject.CommonName] = key
		}
	}
	if verdict.Type == certificatesv1.CertificateApproved {
		der, err := s.ca.sign(template, request.PublicKey)
		if err != nil {
			panic(err)
		}
		csr.Status.Certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	csr.Status.Conditions = append(csr.Status.Conditions, verdict)
}

func reply(w http.ResponseWriter, what any) {
	w.Header().Set("Content-Type", "application/json")
	switch what := what.(type) {
	case *apierrors.StatusError:
		w.WriteHeader(int(what.ErrStatus.Code))
		what.ErrStatus.Kind, what.ErrStatus.APIVersion = "Status", "v1"
		_ = json.NewEncoder(w).Encode(what.ErrStatus)
	case *certificatesv1.CertificateSigningRequest:
		what.Kind, what.APIVersion = "CertificateSigningRequest", "certificates.k8s.io/v1"
		_ = json.NewEncoder(w).Encode(what)
	default:
		_ = json.NewEncoder(w).Encode(what)
	}
}
