package identity

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/certificate"
	"k8s.io/client-go/util/keyutil"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/atomicfile"
	"github.com/everynode/everynode/internal/jointoken"
)

const (
	// refusedFor is how long a refused token is tried: a server that has just started, or a token that has just been
	// made, may not be known to the authenticator yet.
	refusedFor = 5 * time.Second
	// firstPoll and lastPoll bound how often a request is looked at.
	firstPoll = 25 * time.Millisecond
	lastPoll  = 2 * time.Second
	// pendingNote is when a request that nobody judges is worth a log line.
	pendingNote = 10 * time.Second
)

// joiner asks for the node's first certificate.
type joiner struct {
	*Options
	token   jointoken.Token
	refused time.Time // since when the token is refused
	note    note
	expired time.Time // when the identity on disk ran out
}

// join is one try: pin the CA, make the key durable, ask, wait, store.
func (j *joiner) join(ctx context.Context) error {
	ca, err := contact(ctx, j.Server, j.token.CAHash)
	if err != nil {
		return err
	}
	if _, err := atomicfile.WriteIfChanged(j.path(caFile), ca); err != nil {
		return hopelessf("save the server's CA: %w", err)
	}
	keyPEM, key, err := j.key()
	if err != nil {
		return hopelessf("save the node's key: %w", err)
	}
	client, err := kubernetes.NewForConfig(&rest.Config{
		Host: j.Server, BearerToken: j.token.Bearer(), TLSClientConfig: rest.TLSClientConfig{CAData: ca},
		UserAgent: userAgent, QPS: -1, Timeout: 30 * time.Second,
	})
	if err != nil {
		return hopelessf("make a client of %s: %w", j.Server, err)
	}
	certPEM, err := j.request(ctx, client, key)
	if err != nil {
		return err
	}
	if _, err := pairFile(j.path(clientFile)).Update(certPEM, keyPEM); err != nil {
		return hopelessf("save the node's certificate: %w", err)
	}
	return nil
}

// key returns the key to join with: that of an identity that ran out, since the server knows it by that, or of a
// join that was cut off, or a new one. It is on disk before it is returned.
func (j *joiner) key() ([]byte, crypto.Signer, error) {
	for _, name := range []string{clientFile, joinKeyFile} {
		data, err := readIfThere(j.path(name))
		if err != nil {
			return nil, nil, err
		}
		key, err := keyutil.ParsePrivateKeyPEM(data)
		if err != nil {
			continue // not there, or not usable: the next one
		}
		if signer, ok := key.(crypto.Signer); ok {
			keyPEM, err := keyutil.MarshalPrivateKeyToPEM(signer)
			return keyPEM, signer, err
		}
	}
	keyPEM, err := keyutil.MakeEllipticPrivateKeyPEM()
	if err != nil {
		return nil, nil, err
	}
	if err := atomicfile.Write(j.path(joinKeyFile), keyPEM); err != nil {
		return nil, nil, err
	}
	return j.key() // from disk now
}

// request asks for a client certificate and waits for it.
func (j *joiner) request(ctx context.Context, client kubernetes.Interface, key crypto.Signer) ([]byte, error) {
	data, err := certutil.MakeCSRFromTemplate(key, &x509.CertificateRequest{Subject: subject(j.NodeName)})
	if err != nil {
		return nil, hopelessf("make the certificate request: %w", err)
	}
	csrs := client.CertificatesV1().CertificateSigningRequests()
	csr, err := csrs.Create(ctx, &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "everynode-join-"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: data, SignerName: certificatesv1.KubeAPIServerClientKubeletSignerName, Usages: certificate.DefaultKubeletClientGetUsages(key),
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, j.explain("ask for a certificate", err)
	}
	started, poll, noted := time.Now(), firstPoll, false
	for {
		if done, certPEM, err := verdict(csr); done {
			return certPEM, err
		}
		if !noted && time.Since(started) > pendingNote {
			noted = true
			klog.FromContext(ctx).Error(nil, "waiting for the server to judge the certificate request; `everynode kubectl get csr` shows it there", "csr", csr.Name)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(poll):
		}
		poll = min(2*poll, lastPoll)
		next, err := csrs.Get(ctx, csr.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return nil, errors.New("the certificate request was deleted before it was answered")
		case err != nil:
			if err := j.explain("look up the certificate request", err); errors.As(err, &hopeless{}) {
				return nil, err
			}
		default:
			csr, j.refused = next, time.Time{}
		}
	}
}

// verdict says whether the request has its answer, and which.
func verdict(csr *certificatesv1.CertificateSigningRequest) (done bool, certPEM []byte, err error) {
	for _, c := range csr.Status.Conditions {
		if c.Status != corev1.ConditionTrue && c.Status != "" {
			continue
		}
		switch c.Type {
		case certificatesv1.CertificateDenied:
			return true, nil, hopelessf("the server refuses: %s", c.Message)
		case certificatesv1.CertificateFailed:
			return true, nil, hopelessf("the server failed to sign the certificate request %s: %s", csr.Name, c.Message)
		}
	}
	return len(csr.Status.Certificate) > 0, csr.Status.Certificate, nil
}

// explain tells a refused token, which waiting does not cure for long, from trouble on the way.
func (j *joiner) explain(what string, err error) error {
	if !apierrors.IsUnauthorized(err) && !apierrors.IsForbidden(err) {
		return fmt.Errorf("%s: %w", what, err)
	}
	if j.refused.IsZero() {
		j.refused = time.Now()
	}
	if time.Since(j.refused) < refusedFor {
		return passing{fmt.Errorf("%s: %w", what, err)}
	}
	if apierrors.IsForbidden(err) {
		return hopelessf("the server does not let join token %s request certificates: %w", j.token.ID, err)
	}
	return hopelessf("the server does not accept join token %s: it has expired, was revoked, or is of another server; make a new one there with `everynode token create`", j.token.ID)
}

func subject(node string) pkix.Name {
	return pkix.Name{CommonName: "system:node:" + node, Organization: []string{nodesGroup}}
}

// readToken reads the token file; nil: there is none yet.
func (o *Options) readToken() (*jointoken.Token, error) {
	data, err := readIfThere(o.TokenFile)
	if err != nil {
		return nil, hopelessf("read the join token: %w", err)
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, nil
	}
	t, err := jointoken.Parse(string(data))
	if err != nil {
		return nil, hopelessf("%s: %w", o.TokenFile, err)
	}
	return &t, nil
}
