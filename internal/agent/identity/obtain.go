package identity

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"time"

	"k8s.io/client-go/util/certificate"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/atomicfile"
	"github.com/everynode/everynode/internal/jointoken"
	"github.com/everynode/everynode/internal/sleep"
)

const (
	firstRetry = 250 * time.Millisecond
	lastRetry  = 10 * time.Second
	// lastHopelessRetry is how often at last a Persistent one tries what waiting does not cure.
	lastHopelessRetry = time.Minute
	// repeatNote is how often a reason that is still there is logged again.
	repeatNote = time.Minute
)

// obtain returns the node's identity: the one on disk if it is good, or a new one for which it joins. It waits as
// long as waiting may help, and ends with ctx.
func obtain(ctx context.Context, o Options) (*Identity, error) {
	if err := atomicfile.Dir(o.Dir); err != nil {
		return nil, fmt.Errorf("prepare the directory of the node's identity: %w", err)
	}
	if err := atomicfile.Sweep(o.Dir); err != nil {
		return nil, fmt.Errorf("clean the directory of the node's identity: %w", err)
	}
	if err := join(ctx, o); err != nil {
		return nil, err
	}
	return load(&o)
}

// join waits until there is a good identity on disk.
func join(ctx context.Context, o Options) error {
	j := &joiner{Options: &o}
	for wait := firstRetry; ; {
		err, longest := j.try(ctx), lastRetry
		switch {
		case err == nil:
			o.waitFor(nil)
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("join %s as node %s: %w", o.Server, o.NodeName, ctx.Err())
		case errors.As(err, &hopeless{}):
			err = fmt.Errorf("join %s as node %s: %w", o.Server, o.NodeName, err)
			if !o.Persistent {
				return err
			}
			longest = lastHopelessRetry
		}
		o.waitFor(err)
		if !errors.As(err, &passing{}) {
			j.note.log(ctx, err)
		}
		sleep.For(ctx, wait)
		wait = min(2*wait, longest)
	}
}

// try makes sure once that there is a good identity on disk.
func (j *joiner) try(ctx context.Context) error {
	err := j.attempt(ctx)
	if err != nil && !j.expired.IsZero() {
		err = fmt.Errorf("this node's certificate expired on %s, and it has to join again: %w", j.expired.UTC().Format(time.DateOnly), err)
	}
	return err
}

func (j *joiner) attempt(ctx context.Context) error {
	good, err := j.stored(ctx)
	if err != nil || good {
		return err
	}
	if j.TokenFile == "" {
		return hopelessf("this machine has no valid identity in %s: give it the server's join token with --token-file", j.Dir)
	}
	t, err := j.readToken()
	if err != nil {
		return err
	}
	if t == nil {
		return fmt.Errorf("there is no join token in %s yet: copy the server's join-token file there", j.TokenFile)
	}
	if *t != j.token {
		j.token, j.refused = *t, time.Time{}
	}
	if err := j.join(ctx); err != nil {
		return err
	}
	klog.FromContext(ctx).Info("joined", "server", j.Server, "node", j.NodeName)
	return nil
}

// stored says whether the identity on disk can be used as it is.
func (j *joiner) stored(ctx context.Context) (bool, error) {
	ca, err := readIfThere(j.path(caFile))
	if err != nil {
		return false, hopelessf("read the node's identity: %w", err)
	}
	pair, err := pairFile(j.path(clientFile)).Current()
	if none := (*certificate.NoCertKeyError)(nil); ca == nil || errors.As(err, &none) {
		return false, nil
	}
	if err != nil {
		return false, j.spoilt(ctx, err)
	}
	hash, err := jointoken.HashCA(ca)
	if err != nil {
		return false, j.spoilt(ctx, fmt.Errorf("%s: %w", j.path(caFile), err))
	}
	if moved, err := j.movedFrom(ctx, hash); err != nil || moved {
		return false, err
	}
	if got := pair.Leaf.Subject.CommonName; got != "system:node:"+j.NodeName {
		return false, hopelessf("%s holds the identity of %s, not of node %s: start with that name, or remove the directory to join under the new one", j.Dir, got, j.NodeName)
	}
	now := time.Now()
	if now.Before(pair.Leaf.NotBefore) || now.After(pair.Leaf.NotAfter) {
		// Either the certificate has run out, or this machine's clock is wrong: the server's clock tells.
		if _, err := contact(ctx, j.Server, hash); err != nil {
			return false, err
		}
		j.expired = pair.Leaf.NotAfter
		return false, nil
	}
	return true, removeIfThere(j.path(joinKeyFile))
}

// spoilt has a node whose identity cannot be read join again, with its key if that much is left of it.
func (j *joiner) spoilt(ctx context.Context, err error) error {
	if j.TokenFile == "" {
		return hopelessf("the node's identity is unusable (%w): give it the server's join token with --token-file to join again", err)
	}
	j.note.log(ctx, fmt.Errorf("the node's identity is unusable: %w", err))
	return nil
}

// movedFrom says whether the token file is of another server than the identity: then the operator wants the node
// there, or the server's data were reset, and the identity on disk is worth nothing any more.
func (j *joiner) movedFrom(ctx context.Context, caHash string) (bool, error) {
	if j.TokenFile == "" {
		return false, nil
	}
	t, err := j.readToken()
	if err != nil || t == nil || t.CAHash == caHash {
		return false, nil // an unreadable token too: the identity does without
	}
	klog.FromContext(ctx).Info("the join token is of another server than this node's identity: joining that one", "tokenFile", j.TokenFile)
	if err := j.forget(); err != nil {
		return false, hopelessf("forget the old identity: %w", err)
	}
	return true, nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return hopelessf("remove %s: %w", path, err)
	}
	return nil
}

// note logs what is waited for, as an error because that is all that many want to see: each reason once, and again from time to time.
type note struct {
	said map[string]time.Time // in the last repeatNote
}

// sourcePort is in the errors of connections, and another one at each try.
var sourcePort = regexp.MustCompile(`:\d+->`)

func (n *note) log(ctx context.Context, err error) {
	reason, now := sourcePort.ReplaceAllString(err.Error(), "->"), time.Now()
	maps.DeleteFunc(n.said, func(_ string, at time.Time) bool { return now.Sub(at) >= repeatNote })
	if _, ok := n.said[reason]; ok {
		return
	}
	if n.said == nil {
		n.said = map[string]time.Time{}
	}
	n.said[reason] = now
	klog.FromContext(ctx).Error(errors.New(reason), "not joined yet; will keep trying")
}
