// Package tokens makes, lists and revokes the bootstrap tokens with which machines join, and keeps a valid one in
// the server's join-token file.
//
// A token is a standard Kubernetes bootstrap token: a Secret in kube-system that upstream's authenticator reads, so
// `kubectl delete secret` revokes one as well as Revoke does. Whoever holds one is in the group
// system:bootstrappers:everynode and may do nothing but request a node's certificate.
//
// The commands `everynode token create|list|revoke` call it through a kubeconfig, the server through its loopback
// client. It never shows a secret again after Create, and never makes a revoked secret valid again.
package tokens

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	bootstrapapi "k8s.io/cluster-bootstrap/token/api"
	bootstraputil "k8s.io/cluster-bootstrap/token/util"

	"github.com/everynode/everynode/internal/jointoken"
)

const (
	// Group is the group that a token authenticates as, and that may request node certificates.
	Group = "system:bootstrappers:everynode"
	// DefaultTTL is how long a token is valid unless said otherwise.
	DefaultTTL = 24 * time.Hour
)

// Info is what may be shown about a token.
type Info struct {
	ID, Description string
	// Expires is zero for a token that never does (everynode makes none, other tools may).
	Expires time.Time
}

// Create makes a token that is valid for ttl and belongs to the server whose CA has caHash.
func Create(ctx context.Context, client kubernetes.Interface, caHash string, ttl time.Duration, description string) (jointoken.Token, error) {
	if ttl < time.Second {
		return jointoken.Token{}, fmt.Errorf("create a join token: it cannot be valid for %v: give a duration such as 24h", ttl)
	}
	bearer, err := bootstraputil.GenerateBootstrapToken()
	if err != nil {
		return jointoken.Token{}, fmt.Errorf("create a join token: %w", err)
	}
	id, secret, _ := strings.Cut(bearer, ".")
	_, err = client.CoreV1().Secrets(metav1.NamespaceSystem).Create(ctx, newSecret(id, secret, description, time.Now().Add(ttl)), metav1.CreateOptions{})
	if err != nil {
		return jointoken.Token{}, fmt.Errorf("create a join token: %w", err)
	}
	return jointoken.Token{CAHash: caHash, ID: id, Secret: secret}, nil
}

func newSecret(id, secret, description string, expires time.Time) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: bootstraputil.BootstrapTokenSecretName(id), Namespace: metav1.NamespaceSystem},
		Type:       bootstrapapi.SecretTypeBootstrapToken,
		Data: map[string][]byte{
			bootstrapapi.BootstrapTokenIDKey:               []byte(id),
			bootstrapapi.BootstrapTokenSecretKey:           []byte(secret),
			bootstrapapi.BootstrapTokenExpirationKey:       []byte(expires.UTC().Format(time.RFC3339)),
			bootstrapapi.BootstrapTokenUsageAuthentication: []byte("true"),
			bootstrapapi.BootstrapTokenExtraGroupsKey:      []byte(Group),
			bootstrapapi.BootstrapTokenDescriptionKey:      []byte(description),
		},
	}
}

// List shows the tokens that machines can join with, those that expire first coming first. Expired ones are left out.
func List(ctx context.Context, client kubernetes.Interface) ([]Info, error) {
	secrets, err := list(ctx, client)
	if err != nil {
		return nil, fmt.Errorf("list join tokens: %w", err)
	}
	var all []Info
	for i := range secrets {
		info := describe(&secrets[i])
		if info.Expires.IsZero() || info.Expires.After(time.Now()) {
			all = append(all, info)
		}
	}
	slices.SortFunc(all, byExpiry)
	return all, nil
}

// byExpiry puts what never expires last.
func byExpiry(a, b Info) int {
	switch {
	case a.Expires.Equal(b.Expires):
		return strings.Compare(a.ID, b.ID)
	case a.Expires.IsZero():
		return 1
	case b.Expires.IsZero():
		return -1
	}
	return a.Expires.Compare(b.Expires)
}

// Revoke makes a token useless; machines that have joined with it stay. A server that has let somebody in with it
// remembers that for up to ten seconds. It takes the id or the whole token.
func Revoke(ctx context.Context, client kubernetes.Interface, token string) error {
	id := strings.TrimSpace(token)
	if t, err := jointoken.Parse(token); err == nil {
		id = t.ID
	}
	if !jointoken.ValidID(id) {
		return errors.New("revoke a join token: want its id (6 of a-z and 0-9), as `everynode token list` shows it")
	}
	secrets := client.CoreV1().Secrets(metav1.NamespaceSystem)
	err := secrets.Delete(ctx, bootstraputil.BootstrapTokenSecretName(id), metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("revoke a join token: there is none with id %s; `everynode token list` shows those there are", id)
	}
	if err != nil {
		return fmt.Errorf("revoke join token %s: %w", id, err)
	}
	return nil
}

// list returns the Secrets of the tokens that authenticate as Group.
func list(ctx context.Context, client kubernetes.Interface) ([]corev1.Secret, error) {
	found, err := client.CoreV1().Secrets(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("type", string(bootstrapapi.SecretTypeBootstrapToken)).String(),
	})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(found.Items, func(s corev1.Secret) bool { return !joins(&s) }), nil
}

func joins(s *corev1.Secret) bool {
	groups := strings.Split(string(s.Data[bootstrapapi.BootstrapTokenExtraGroupsKey]), ",")
	return s.Type == bootstrapapi.SecretTypeBootstrapToken && slices.Contains(groups, Group) &&
		string(s.Data[bootstrapapi.BootstrapTokenUsageAuthentication]) == "true"
}

func describe(s *corev1.Secret) Info {
	return Info{
		ID:          string(s.Data[bootstrapapi.BootstrapTokenIDKey]),
		Description: string(s.Data[bootstrapapi.BootstrapTokenDescriptionKey]),
		Expires:     expiry(s),
	}
}

// expiry is zero when the token never expires. One whose expiry cannot be read is over already, as the
// authenticator judges it.
func expiry(s *corev1.Secret) time.Time {
	data, ok := s.Data[bootstrapapi.BootstrapTokenExpirationKey]
	if !ok || len(data) == 0 {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, string(data))
	if err != nil {
		return time.Unix(0, 0)
	}
	return t
}
