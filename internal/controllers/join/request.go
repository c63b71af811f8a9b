package join

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	// BootstrapGroup is the group of join tokens' holders.
	BootstrapGroup = "system:bootstrappers:everynode"

	nodesGroup     = "system:nodes"
	nodeUserPrefix = "system:node:"
)

// request is a CSR from a join token's holder or a node, taken apart.
type request struct {
	csr  *certificatesv1.CertificateSigningRequest
	x509 *x509.CertificateRequest
	node string // the name it asks to be
}

// refusal is a reason to deny, worded for whoever reads the agent's log.
type refusal struct{ reason, message string }

func refuse(reason, format string, args ...any) *refusal {
	return &refusal{reason: reason, message: fmt.Sprintf(format, args...)}
}

// concerns says whether the request is this package's to judge, by signer and requester.
func concerns(csr *certificatesv1.CertificateSigningRequest) bool {
	switch csr.Spec.SignerName {
	case certificatesv1.KubeAPIServerClientKubeletSignerName, certificatesv1.KubeletServingSignerName:
	default:
		return false
	}
	return bootstraps(csr) || isNode(csr)
}

func bootstraps(csr *certificatesv1.CertificateSigningRequest) bool {
	return slices.Contains(csr.Spec.Groups, BootstrapGroup)
}

func isNode(csr *certificatesv1.CertificateSigningRequest) bool {
	return slices.Contains(csr.Spec.Groups, nodesGroup) && strings.HasPrefix(csr.Spec.Username, nodeUserPrefix)
}

// settled says whether the request has its answer.
func settled(csr *certificatesv1.CertificateSigningRequest) bool {
	return len(csr.Status.Certificate) > 0 || slices.ContainsFunc(csr.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool {
		return c.Type == certificatesv1.CertificateApproved || c.Type == certificatesv1.CertificateDenied || c.Type == certificatesv1.CertificateFailed
	})
}

// read takes a CSR apart and checks what holds for all of them: a well-formed request, signed with the key it is
// for, naming a node as the node authorizer knows them, for the usages of its signer.
func read(csr *certificatesv1.CertificateSigningRequest) (*request, *refusal) {
	parsed, err := parse(csr.Spec.Request)
	if err != nil {
		return nil, refuse("MalformedRequest", "the certificate request cannot be used: %v", err)
	}
	name, ok := strings.CutPrefix(parsed.Subject.CommonName, nodeUserPrefix)
	if !ok || !slices.Equal(parsed.Subject.Organization, []string{nodesGroup}) {
		return nil, refuse("WrongSubject", "the subject is CN=%s,O=%s, but a node's is CN=%sNAME,O=%s",
			parsed.Subject.CommonName, strings.Join(parsed.Subject.Organization, "+"), nodeUserPrefix, nodesGroup)
	}
	if why := badName(name); why != "" {
		return nil, refuse("InvalidNodeName", "%q cannot be a node's name: %s; choose another with --node-name", name, why)
	}
	if !rightUsages(csr) {
		return nil, refuse("WrongUsages", "the usages %v are not those of signer %s", csr.Spec.Usages, csr.Spec.SignerName)
	}
	return &request{csr: csr, x509: parsed, node: name}, nil
}

func parse(data []byte) (*x509.CertificateRequest, error) {
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("no PEM block of type CERTIFICATE REQUEST")
	}
	if len(strings.TrimSpace(string(rest))) > 0 {
		return nil, errors.New("data after the PEM block")
	}
	parsed, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	return parsed, parsed.CheckSignature()
}

// badName says why name cannot be a node's, or nothing. Beyond what the API asks, it must fit into the label
// kubernetes.io/hostname, and not be one of the names by which clients know the API server: a node gets a serving
// certificate for its name from the same CA.
func badName(name string) string {
	if errs := validation.IsDNS1123Subdomain(name); len(errs) > 0 {
		return strings.Join(errs, "; ")
	}
	if len(name) > validation.LabelValueMaxLength {
		return fmt.Sprintf("it is longer than %d characters", validation.LabelValueMaxLength)
	}
	if name == "localhost" || name == "kubernetes" || strings.HasPrefix(name, "kubernetes.default") || strings.HasPrefix(name, "everynode-apiserver") {
		return "it is a name of the API server"
	}
	return ""
}

// rightUsages accepts exactly what the signers accept; key encipherment is for RSA keys.
func rightUsages(csr *certificatesv1.CertificateSigningRequest) bool {
	auth := certificatesv1.UsageClientAuth
	if csr.Spec.SignerName == certificatesv1.KubeletServingSignerName {
		auth = certificatesv1.UsageServerAuth
	}
	got := slices.Clone(csr.Spec.Usages)
	got = slices.DeleteFunc(got, func(u certificatesv1.KeyUsage) bool { return u == certificatesv1.UsageKeyEncipherment })
	slices.Sort(got)
	return slices.Equal(slices.Compact(got), sortedUsages(certificatesv1.UsageDigitalSignature, auth))
}

func sortedUsages(u ...certificatesv1.KeyUsage) []certificatesv1.KeyUsage {
	slices.Sort(u)
	return u
}

// checkClientNames refuses names in a client certificate: its subject is all that counts.
func (r *request) checkClientNames() *refusal {
	if len(r.x509.DNSNames)+len(r.x509.IPAddresses)+len(r.x509.EmailAddresses)+len(r.x509.URIs) > 0 {
		return refuse("UnexpectedNames", "a node's client certificate carries no alternative names")
	}
	return nil
}

// checkServingNames refuses every name and address that is not the node's own.
func (r *request) checkServingNames(node *corev1.Node, reserved *net.IPNet) *refusal {
	if len(r.x509.EmailAddresses)+len(r.x509.URIs) > 0 {
		return refuse("UnexpectedNames", "a node's serving certificate carries DNS names and IP addresses only")
	}
	if len(r.x509.DNSNames)+len(r.x509.IPAddresses) == 0 {
		return refuse("MissingNames", "a node's serving certificate needs a DNS name or an IP address")
	}
	for _, name := range r.x509.DNSNames {
		if name != r.node {
			return refuse("ForeignName", "%q is not the node's name %q", name, r.node)
		}
	}
	for _, ip := range r.x509.IPAddresses {
		switch {
		case reserved != nil && reserved.Contains(ip):
			return refuse("ForeignAddress", "%s lies in the range of services %s", ip, reserved)
		case !ip.IsLoopback() && !hasAddress(node, ip):
			return refuse("ForeignAddress", "%s is not among the addresses in the status of Node %s", ip, r.node)
		}
	}
	return nil
}

func hasAddress(node *corev1.Node, ip net.IP) bool {
	return slices.ContainsFunc(node.Status.Addresses, func(a corev1.NodeAddress) bool {
		return (a.Type == corev1.NodeInternalIP || a.Type == corev1.NodeExternalIP) && ip.Equal(net.ParseIP(a.Address))
	})
}

// keyHash names the public key that the request proves to hold.
func (r *request) keyHash() string {
	sum := sha256.Sum256(r.x509.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}
