package ranges

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/kubernetes/pkg/controller/nodeipam/ipam/cidrset"
	netutils "k8s.io/utils/net"
)

// Ledger knows which ranges are taken. The zero value is ready to use, and gives nothing away until a Controller that
// works with it has seen every node. It is safe for concurrent use.
type Ledger struct {
	mu   sync.Mutex
	term context.Context // of the leadership; nil when this server does not lead
	free *cidrset.CidrSet
	// promised are the ranges of nodes that were not seen with them yet.
	promised map[string]*promise
	writing  sync.WaitGroup
}

type promise struct {
	cidr *net.IPNet
	// inUse: a write with this range is under way.
	inUse bool
	// written: a node with this range may be stored.
	written bool
}

// With calls create with the range that the node is to have, in CIDR notation, and returns its error. The range is ""
// when none can be promised here and now; the node then gets its range after it was created. A range that create
// refused (an API status below 500) is free again. create's context ends with the term of leadership.
func (l *Ledger) With(ctx context.Context, node string, create func(ctx context.Context, cidr string) error) error {
	done, err := l.with(ctx, node, create)
	if !done {
		return create(ctx, "")
	}
	return err
}

// Why no range can be promised; besides, cidrset.ErrCIDRRangeNoCIDRsRemaining.
var (
	errNotLeading = errors.New("this server does not give ranges of pod addresses away now")
	errInUse      = errors.New("a node of this name is being created")
)

// with calls write with a range for the node, if one can be promised. Otherwise it is not done, and err says why.
func (l *Ledger) with(ctx context.Context, node string, write func(ctx context.Context, cidr string) error) (done bool, err error) {
	term, p, err := l.promise(node)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(term, cancel)()
	err = errors.New("the write did not return") // a panic leaves an unknown end
	defer func() { l.settle(node, p, err) }()
	err = write(ctx, p.cidr.String())
	return true, err
}

func (l *Ledger) promise(node string) (context.Context, *promise, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term == nil || l.term.Err() != nil || node == "" {
		return nil, nil, errNotLeading
	}
	p := l.promised[node]
	if p != nil && p.inUse {
		return nil, nil, errInUse
	}
	if p == nil {
		cidr, err := l.free.AllocateNext()
		if err != nil {
			return nil, nil, err
		}
		p = &promise{cidr: cidr}
		l.promised[node] = p
	}
	p.inUse = true
	l.writing.Add(1)
	return l.term, p, nil
}

func (l *Ledger) settle(node string, p *promise, err error) {
	defer l.writing.Done()
	l.mu.Lock()
	defer l.mu.Unlock()
	p.inUse = false
	p.written = p.written || !refused(err)
	if !p.written && l.promised[node] == p {
		delete(l.promised, node)
		_ = l.free.Release(p.cidr) // it came from there
	}
}

// refused tells whether err says that nothing was written.
func refused(err error) bool {
	var s apierrors.APIStatus
	if !errors.As(err, &s) {
		return false
	}
	code := s.Status().Code
	return code >= http.StatusBadRequest && code < http.StatusInternalServerError && code != http.StatusRequestTimeout
}

// open begins a term: free knows of every node.
func (l *Ledger) open(term context.Context, free *cidrset.CidrSet) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.term, l.free, l.promised = term, free, map[string]*promise{}
}

// close ends the term, and returns when the writes of its ranges have ended.
func (l *Ledger) close() {
	l.mu.Lock()
	l.term = nil
	l.mu.Unlock()
	l.writing.Wait()
}

// take notes that a node was seen with its ranges.
func (l *Ledger) take(free *cidrset.CidrSet, node string, cidrs []string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range cidrs {
		cidr, err := parse(s)
		if err != nil {
			return err
		}
		if err := free.Occupy(cidr); err != nil {
			return fmt.Errorf("range %s: %w", s, err)
		}
		if p := l.promised[node]; p != nil && p.cidr.String() == cidr.String() {
			delete(l.promised, node)
		}
	}
	return nil
}

func parse(s string) (*net.IPNet, error) {
	_, cidr, err := netutils.ParseCIDRSloppy(s) // what is stored was checked by the API
	if err != nil {
		return nil, fmt.Errorf("range %q: %w", s, err)
	}
	return cidr, nil
}
