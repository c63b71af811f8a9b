package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// listen opens the main address and the extra ones as one listener. Its address is the main one's.
func listen(ctx context.Context, main string, extra []string) (net.Listener, error) {
	first, err := (&net.ListenConfig{}).Listen(ctx, "tcp", main)
	if err != nil {
		return nil, listenError(main, err)
	}
	all := []net.Listener{first}
	port := strconv.Itoa(first.Addr().(*net.TCPAddr).Port)
	for _, a := range extra {
		if host, p, _ := net.SplitHostPort(a); p == "0" {
			a = net.JoinHostPort(host, port)
		}
		l, err := (&net.ListenConfig{Control: freeBind}).Listen(ctx, "tcp", a)
		if err != nil {
			for _, l := range all {
				_ = l.Close()
			}
			return nil, listenError(a, err)
		}
		all = append(all, l)
	}
	if len(all) == 1 {
		return first, nil
	}
	return join(all), nil
}

// freeBind lets a socket listen on an address that no interface has yet.
func freeBind(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_FREEBIND, 1) }); e != nil {
		return e
	}
	return err
}

func listenError(address string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("apiserver: %s is already in use (%w): stop the other server (`ss -ltnp` names it), or choose another address with --listen", address, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("apiserver: %s is not an address of this machine (%w): see `ip address`, or choose another with --listen", address, err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("apiserver: no permission to listen on %s (%w): run as root, or choose a port above 1023", address, err)
	}
	return fmt.Errorf("apiserver: cannot listen on %s: %w", address, err)
}

// joined accepts from several listeners.
type joined struct {
	all    []net.Listener
	conns  chan net.Conn
	errs   chan error
	closed chan struct{}
	once   sync.Once
}

func join(all []net.Listener) *joined {
	j := &joined{all: all, conns: make(chan net.Conn), errs: make(chan error), closed: make(chan struct{})}
	for _, l := range all {
		go j.accept(l)
	}
	return j
}

func (j *joined) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			select {
			case j.errs <- err:
				if errors.Is(err, net.ErrClosed) {
					return
				}
				continue
			case <-j.closed:
				return
			}
		}
		select {
		case j.conns <- c:
		case <-j.closed:
			_ = c.Close()
			return
		}
	}
}

// Accept returns the next connection of any of the listeners.
func (j *joined) Accept() (net.Conn, error) {
	select {
	case c := <-j.conns:
		return c, nil
	case err := <-j.errs:
		return nil, err
	case <-j.closed:
		return nil, net.ErrClosed
	}
}

// Close closes all listeners.
func (j *joined) Close() error {
	var errs []error
	j.once.Do(func() {
		close(j.closed)
		for _, l := range j.all {
			errs = append(errs, l.Close())
		}
	})
	return errors.Join(errs...)
}

// Addr is the first listener's address.
func (j *joined) Addr() net.Addr { return j.all[0].Addr() }
