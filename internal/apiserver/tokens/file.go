package tokens

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	bootstrapapi "k8s.io/cluster-bootstrap/token/api"
	bootstraputil "k8s.io/cluster-bootstrap/token/util"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/atomicfile"
	"github.com/everynode/everynode/internal/jointoken"
)

// checkEvery is how often the file's token is looked at.
const checkEvery = time.Minute

// File is the server's join-token file: one line, for the operator to copy to the next machine.
type File struct {
	Client kubernetes.Interface
	// Path of the file, made with mode 0600.
	Path string
	// CAHash names the server's CA (pki.Bundle.CAHash).
	CAHash string
	// TTL of the tokens made for the file; 0 is DefaultTTL.
	TTL time.Duration
}

// Validate tells which part is missing.
func (f *File) Validate() error {
	switch {
	case f.Client == nil:
		return errors.New("join-token file: no client")
	case f.Path == "":
		return errors.New("join-token file: no path")
	case f.CAHash == "":
		return errors.New("join-token file: no CA hash")
	case f.TTL < 0:
		return errors.New("join-token file: negative TTL")
	}
	return nil
}

func (f *File) ttl() time.Duration {
	if f.TTL == 0 {
		return DefaultTTL
	}
	return f.TTL
}

// Keep keeps a valid token in the file until ctx ends:
//
//	start: a valid token stays; without one (first start, expired, revoked, another CA) a new one is made
//	a third of the life left: a new token is made; the old one stays valid for its rest, so that a line copied
//	    a moment ago still works
//	revoked meanwhile: the file goes away and stays away until the next start, since whoever revokes the default
//	    token does not want another in its place at once; `everynode token create` makes one when it is wanted
//
// An API that does not answer is asked again later. Expired tokens are deleted on the way.
func (f *File) Keep(ctx context.Context) error {
	if err := f.Validate(); err != nil {
		return err
	}
	log := klog.FromContext(ctx).WithValues("file", f.Path)
	k := keeper{File: f}
	for wait := time.Second; ; {
		err := k.step(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			log.Error(err, "join token not checked; will try again", "in", wait)
		case k.revoked:
			log.Info("the default join token was revoked: the file is removed until the next start; `everynode token create` makes a new token")
			<-ctx.Done()
			return nil
		}
		next := checkEvery
		if err != nil {
			next, wait = wait, min(2*wait, checkEvery)
		} else {
			wait = time.Second
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(next):
		}
	}
}

// keeper is a File and what its last step saw.
type keeper struct {
	*File
	valid   time.Time // until when the file's token is valid, as last seen; zero before the first step
	revoked bool
}

// step is one look at the file and its token.
func (k *keeper) step(ctx context.Context) error {
	if err := k.prune(ctx); err != nil {
		return err
	}
	expires, err := k.check(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	switch {
	case expires.Sub(now) > k.ttl()/3:
		k.valid = expires
		return atomicfile.Restrict(k.Path)
	case expires.IsZero() && k.valid.After(now):
		k.revoked = true
		return k.remove()
	}
	t, err := Create(ctx, k.Client, k.CAHash, k.ttl(), "the server's default token, in "+k.Path)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(k.Path, []byte(t.String()+"\n")); err != nil {
		return errors.Join(err, Revoke(ctx, k.Client, t.ID)) // nobody knows it
	}
	k.valid = now.Add(k.ttl())
	return nil
}

// check returns until when the file's token is valid; zero: there is none, or it is not.
func (k *keeper) check(ctx context.Context) (time.Time, error) {
	data, err := os.ReadFile(k.Path)
	if errors.Is(err, fs.ErrNotExist) {
		// An operator who removes the file wants a fresh one, not to have revoked a token.
		k.valid = time.Time{}
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read the join token: %w", err)
	}
	t, err := jointoken.Parse(string(data))
	if err != nil || t.CAHash != k.CAHash {
		k.valid = time.Time{}
		return time.Time{}, nil
	}
	s, err := k.Client.CoreV1().Secrets(metav1.NamespaceSystem).Get(ctx, bootstraputil.BootstrapTokenSecretName(t.ID), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("look up the join token %s: %w", t.ID, err)
	}
	if !k.is(s, t) {
		return time.Time{}, nil
	}
	if e := expiry(s); !e.IsZero() {
		return e, nil
	}
	return time.Now().Add(k.ttl()), nil // it never expires: somebody wanted it so
}

// is says whether the Secret still makes t valid.
func (k *keeper) is(s *corev1.Secret, t jointoken.Token) bool {
	return s.DeletionTimestamp == nil && joins(s) &&
		subtle.ConstantTimeCompare(s.Data[bootstrapapi.BootstrapTokenSecretKey], []byte(t.Secret)) == 1
}

func (k *keeper) remove() error {
	if err := os.Remove(k.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the revoked join token: %w", err)
	}
	return nil
}

// prune deletes tokens that expired a while ago; the authenticator does not take them anyway.
func (k *keeper) prune(ctx context.Context) error {
	secrets, err := list(ctx, k.Client)
	if err != nil {
		return fmt.Errorf("list join tokens: %w", err)
	}
	for i := range secrets {
		e := expiry(&secrets[i])
		if e.IsZero() || time.Since(e) < checkEvery {
			continue
		}
		uid := secrets[i].UID
		err := k.Client.CoreV1().Secrets(metav1.NamespaceSystem).Delete(ctx, secrets[i].Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("delete the expired join token %s: %w", describe(&secrets[i]).ID, err)
		}
	}
	return nil
}
