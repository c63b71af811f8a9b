package objects

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

const (
	// bindingLag is how long the node authorizer may not yet know that a pod is
	// bound to this node; until then Forbidden means "ask again".
	bindingLag = time.Second
	// answerWithin bounds how long a caller waits for an object's first answer.
	answerWithin = 10 * time.Second
)

// Cache is a Source over a Kubernetes API. It follows what registered pods
// reference and answers from memory; anything else it reads when asked.
type Cache struct {
	client kubernetes.Interface
	// ctx lives as long as the cache: watches outlast the calls that start them.
	ctx  context.Context
	stop context.CancelFunc

	mu     sync.Mutex
	items  map[Ref]*item
	pods   map[types.UID][]Ref
	tokens map[tokenKey]*authenticationv1.TokenRequest
	// recalled is what is remembered from before the start; nil once the server has been heard.
	recalled  map[Ref]object
	listeners map[int]func(Ref)
	nextID    int
}

// New returns a Cache that reads through client, as a node. Close ends its watches.
func New(client kubernetes.Interface) *Cache {
	ctx, stop := context.WithCancel(context.Background())
	return &Cache{
		client: client, ctx: ctx, stop: stop,
		items:     map[Ref]*item{},
		pods:      map[types.UID][]Ref{},
		tokens:    map[tokenKey]*authenticationv1.TokenRequest{},
		listeners: map[int]func(Ref){},
	}
}

// Close ends every watch. What is known stays readable.
func (c *Cache) Close() { c.stop() }

// Register follows what pod references from now on. Calling it again, say after
// an ephemeral container came, follows the difference.
func (c *Cache) Register(pod *corev1.Pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before, now := c.pods[pod.UID], References(pod)
	c.pods[pod.UID] = now
	for _, ref := range now {
		if !slices.Contains(before, ref) {
			c.hold(ref, pod.UID)
		}
	}
	c.release(before, now, pod.UID)
}

// Unregister stops following what only pod referenced, and forgets its tokens.
func (c *Cache) Unregister(pod *corev1.Pod) { c.UnregisterUID(pod.UID) }

// UnregisterUID is Unregister for a pod of which only the UID is known.
func (c *Cache) UnregisterUID(uid types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.release(c.pods[uid], nil, uid)
	delete(c.pods, uid)
	for key := range c.tokens {
		if key.pod == uid {
			delete(c.tokens, key)
		}
	}
}

func (c *Cache) hold(ref Ref, uid types.UID) {
	it := c.items[ref]
	if it == nil {
		it = newItem(ref)
		c.items[ref] = it
	}
	it.pods[uid] = true
	it.hurry() // the watch may be waiting out a failure that is long over
	if !it.running {
		ctx, cancel := context.WithCancel(c.ctx)
		it.running, it.cancel = true, cancel
		go c.follow(ctx, it)
	}
}

func (c *Cache) release(before, now []Ref, uid types.UID) {
	for _, ref := range before {
		it := c.items[ref]
		if it == nil || slices.Contains(now, ref) {
			continue
		}
		delete(it.pods, uid)
		if len(it.pods) == 0 {
			it.cancel()
			delete(c.items, ref)
		}
	}
}

// Subscribe calls f after each object that came, changed or went.
func (c *Cache) Subscribe(f func(Ref)) (cancel func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := c.nextID
	c.nextID++
	c.listeners[id] = f
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.listeners, id)
	}
}

func (c *Cache) notify(ref Ref) {
	c.mu.Lock()
	ids := make([]int, 0, len(c.listeners))
	for id := range c.listeners {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	calls := make([]func(Ref), 0, len(ids))
	for _, id := range ids {
		calls = append(calls, c.listeners[id])
	}
	c.mu.Unlock()
	for _, f := range calls {
		f(ref)
	}
}

// ConfigMap returns a ConfigMap that a pod of this node references.
func (c *Cache) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	return read[*corev1.ConfigMap](ctx, c, Ref{Kind: ConfigMap, Namespace: namespace, Name: name})
}

// Secret returns a Secret that a pod of this node references.
func (c *Cache) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	return read[*corev1.Secret](ctx, c, Ref{Kind: Secret, Namespace: namespace, Name: name})
}

func read[T object](ctx context.Context, c *Cache, ref Ref) (T, error) {
	var none T
	c.mu.Lock()
	it, recalled := c.items[ref], c.recalled[ref]
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()

	obj, err := object(nil), error(nil)
	if recalled != nil && (it == nil || !it.isKnown()) {
		obj = recalled
	} else if it != nil {
		obj, err = it.wait(ctx)
	} else {
		obj, err = c.fetch(ctx, ref)
	}
	if err != nil {
		return none, fmt.Errorf("%s: %w", ref, err)
	}
	typed, ok := obj.(T)
	if !ok {
		return none, fmt.Errorf("%s: the server answered with a %T", ref, obj)
	}
	return typed, nil
}
