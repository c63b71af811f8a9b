package objects

import (
	"context"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

// tokenKey tells tokens apart; it holds nothing secret.
type tokenKey struct {
	namespace, account, audiences string
	seconds                       int64
	pod                           types.UID
}

func keyOf(namespace, account string, tr *authenticationv1.TokenRequest) tokenKey {
	key := tokenKey{namespace: namespace, account: account, audiences: strings.Join(tr.Spec.Audiences, "\x00")}
	if s := tr.Spec.ExpirationSeconds; s != nil {
		key.seconds = *s
	}
	if r := tr.Spec.BoundObjectRef; r != nil {
		key.pod = r.UID
	}
	return key
}

// Token returns a token of a service account that is good for a while. A token
// that cannot be renewed is handed out until it expires.
func (c *Cache) Token(ctx context.Context, namespace, account string, tr *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	key := keyOf(namespace, account, tr)
	c.mu.Lock()
	have := c.tokens[key]
	c.mu.Unlock()
	if have != nil && time.Now().Before(RefreshAt(have)) {
		return have, nil
	}
	if have == nil && c.offline() {
		return nil, fmt.Errorf("token of service account %s/%s: %w", namespace, account, ErrOffline)
	}
	got, err := c.request(ctx, namespace, account, tr)
	if err != nil {
		if have != nil && time.Now().Before(have.Status.ExpirationTimestamp.Time) {
			klog.FromContext(ctx).Error(err, "A service account token was not renewed; the old one is used until it expires",
				"serviceAccount", namespace+"/"+account, "expires", have.Status.ExpirationTimestamp)
			return have, nil
		}
		return nil, fmt.Errorf("token of service account %s/%s: %w", namespace, account, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// A pod that is gone, or was never registered, has no one to clear up after it.
	if _, registered := c.pods[key.pod]; registered {
		c.tokens[key] = got
	}
	return got, nil
}

func (c *Cache) request(ctx context.Context, namespace, account string, tr *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	var got *authenticationv1.TokenRequest
	err := untilBound(ctx, func() (err error) {
		got, err = c.client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, tr, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return nil, err
	}
	if got.Spec.ExpirationSeconds != nil {
		// By our clock from here on: with the server's, a clock that is off would
		// make a token look expired for ever, or fresh when it is not.
		got.Status.ExpirationTimestamp = metav1.NewTime(time.Now().Add(time.Duration(*got.Spec.ExpirationSeconds) * time.Second))
	}
	return got, nil
}

// RefreshAt is when a token that Token returned should be replaced: at 75 to 80 %
// of its life, or after a day. Which moment exactly depends on the token, so that
// a fleet whose pods started together does not renew together.
func RefreshAt(tr *authenticationv1.TokenRequest) time.Time {
	expires := tr.Status.ExpirationTimestamp.Time
	if tr.Spec.ExpirationSeconds == nil {
		return expires
	}
	life := time.Duration(*tr.Spec.ExpirationSeconds) * time.Second
	h := fnv.New32a()
	_, _ = h.Write([]byte(tr.Status.Token))
	early := time.Duration(float64(life) / 20 * float64(h.Sum32()%1000) / 1000)
	return expires.Add(-life).Add(min(life*8/10-early, 24*time.Hour-early))
}
