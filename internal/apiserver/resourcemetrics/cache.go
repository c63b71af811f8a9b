package resourcemetrics

import (
	"context"
	"errors"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

const (
	// fresh is how long an answer of a node serves everyone. Agents measure every ten seconds at most.
	fresh = 10 * time.Second
	// stale is how old an answer may be that is shown while the node does not give a newer one.
	stale = 2 * time.Minute
	// patience is how long a request waits for nodes. What comes later serves the next one.
	patience = 8 * time.Second
	// askTimeout bounds one question to a node.
	askTimeout = 5 * time.Second
	// retryAfter is how long a node that did not answer is left alone.
	retryAfter = 15 * time.Second
	// keep is how long after the last request anything is remembered.
	keep = 5 * time.Minute
	// parallel bounds the nodes asked at the same time: for a third of a second each, mostly spent
	// waiting, when nobody has asked them for a while.
	parallel = 256
)

// Cache knows what nodes used a moment ago, and asks those it does not know of. It is safe for
// concurrent use.
type Cache struct {
	// Ask asks one node, as Source does.
	Ask func(ctx context.Context, node *corev1.Node) (*Usage, error)

	mu      sync.Mutex
	entries map[types.UID]*entry
	slots   chan struct{}
	forget  *time.Timer
}

// entry is what is known of a node.
type entry struct {
	usage *Usage // the last answer, or nil
	at    time.Time
	// err is why the last question was not answered, failed when that was.
	err    error
	failed time.Time
	// pending is closed when the question under way is answered; nil if there is none.
	pending chan struct{}
}

// errTooMany: the node's turn did not come in time.
var errTooMany = errors.New("too many nodes are being asked at the same time")

// Usages returns what the nodes use, by name. Nodes that have not answered in time are missing.
func (c *Cache) Usages(ctx context.Context, nodes []*corev1.Node) map[string]*Usage {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, pending := range c.askAll(ctx, nodes) {
		select {
		case <-pending:
		case <-ctx.Done():
			return c.known(nodes)
		}
	}
	return c.known(nodes)
}

// Why says why the node is missing in Usages; nil if that is not known.
func (c *Cache) Why(node *corev1.Node) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[node.UID]; e != nil {
		return e.err
	}
	return nil
}

// known collects what is not too old.
func (c *Cache) known(nodes []*corev1.Node) map[string]*Usage {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]*Usage, len(nodes))
	for _, node := range nodes {
		if e := c.entries[node.UID]; e != nil && e.usage != nil && time.Since(e.at) < stale {
			out[node.Name] = e.usage
		}
	}
	return out
}

// askAll has all nodes asked whose answer is not fresh, and returns those questions that are worth
// waiting for: not of nodes that failed to answer the last time, or that are known to be silent.
func (c *Cache) askAll(ctx context.Context, nodes []*corev1.Node) []chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remember()
	var wait []chan struct{}
	for _, node := range nodes {
		e := c.entries[node.UID]
		if e == nil {
			e = &entry{}
			c.entries[node.UID] = e
		}
		if e.pending == nil && time.Since(e.at) >= fresh && time.Since(e.failed) >= retryAfter {
			e.pending = make(chan struct{})
			go c.ask(context.WithoutCancel(ctx), ctx.Done(), node, e)
		}
		if e.pending != nil && e.err == nil && !silent(node) {
			wait = append(wait, e.pending)
		}
	}
	return wait
}

// remember begins to keep entries, and puts off the time when they are forgotten.
func (c *Cache) remember() {
	if c.entries == nil {
		c.entries, c.slots = map[types.UID]*entry{}, make(chan struct{}, parallel)
	}
	if c.forget == nil {
		c.forget = time.AfterFunc(keep, c.drop)
		return
	}
	c.forget.Reset(keep)
}

func (c *Cache) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries, c.forget = nil, nil
}

// silent nodes have not reported for so long that the control plane has noticed.
func silent(node *corev1.Node) bool {
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionUnknown
		}
	}
	return false
}

// ask asks one node when its turn comes. If nobody waits any more by then, it is not asked.
func (c *Cache) ask(ctx context.Context, leaving <-chan struct{}, node *corev1.Node, e *entry) {
	var usage *Usage
	err := errTooMany
	select {
	case c.slots <- struct{}{}:
		asking, cancel := context.WithTimeout(ctx, askTimeout)
		usage, err = c.Ask(asking, node)
		cancel()
		<-c.slots
	case <-leaving:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	close(e.pending)
	e.pending = nil
	switch {
	case err == nil:
		*e = entry{usage: usage, at: time.Now()}
	case !errors.Is(err, errTooMany):
		e.err, e.failed = err, time.Now()
		klog.V(2).InfoS("A node does not say what it uses", "node", klog.KObj(node), "err", err)
	}
}
