package identity

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Options say who is to join where.
type Options struct {
	// Server is the API server's URL, https://HOST:PORT.
	Server string
	// TokenFile holds the join token. It is read only if there is no identity for this server yet, and may appear
	// later than the agent starts. Empty: there is an identity already.
	TokenFile string
	// NodeName is the name to join under.
	NodeName string
	// Dir keeps the identity; nothing else may write to it.
	Dir string
	// Dial has a node that has joined connect to whichever server answers; they are all known by
	// serverName. Default: to Server alone.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Persistent tries again, at longer and longer intervals, what otherwise ends Run: a service that
	// ended would only be started again at once.
	Persistent bool
	// Waiting is told what is waited for after each try, and nil when that is over. Nil: nobody is.
	Waiting func(reason error)
}

func (o *Options) dial() func(ctx context.Context, network, address string) (net.Conn, error) {
	if o.Dial != nil {
		return o.Dial
	}
	return (&net.Dialer{Timeout: contactTimeout, KeepAlive: 30 * time.Second}).DialContext
}

func (o *Options) waitFor(err error) {
	if o.Waiting != nil {
		o.Waiting(err)
	}
}

// Validate tells what is wrong, and with which flag to set it right.
func (o *Options) Validate() error {
	u, err := url.Parse(o.Server)
	switch {
	case o.Server == "":
		return errors.New("no server: give --server https://HOST:6443")
	case err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "":
		return fmt.Errorf("server %q is not of the form https://HOST:PORT", o.Server)
	case o.Dir == "":
		return errors.New("no directory for the node's identity")
	}
	if errs := validation.IsDNS1123Subdomain(o.NodeName); len(errs) > 0 {
		return fmt.Errorf("%q cannot be a node's name: %s; choose another with --node-name", o.NodeName, strings.Join(errs, "; "))
	}
	return nil
}
