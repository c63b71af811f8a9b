package objects

import (
	"errors"

	corev1 "k8s.io/api/core/v1"
)

// ErrOffline says that only the server could answer, and that it has not been heard since the start.
var ErrOffline = errors.New("no API server has answered since the agent started")

// Recall hands out objects that are remembered from before, for as long as the server has not been
// heard. Until Heard is called, tokens that are not at hand are not asked for: ErrOffline.
func (c *Cache) Recall(configMaps []*corev1.ConfigMap, secrets []*corev1.Secret) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.recalled == nil {
		c.recalled = map[Ref]object{}
	}
	for _, cm := range configMaps {
		c.recalled[Ref{Kind: ConfigMap, Namespace: cm.Namespace, Name: cm.Name}] = cm
	}
	for _, s := range secrets {
		c.recalled[Ref{Kind: Secret, Namespace: s.Namespace, Name: s.Name}] = s
	}
}

// Heard says that the server has answered: it alone knows now.
func (c *Cache) Heard() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.recalled = nil
}

func (c *Cache) offline() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.recalled != nil
}

// Known is a followed or recalled object if it is known to exist, without asking; else nil.
func (c *Cache) Known(ref Ref) any {
	c.mu.Lock()
	it, recalled := c.items[ref], c.recalled[ref]
	c.mu.Unlock()
	if it != nil {
		if obj, known := it.peek(); known {
			return orNil(obj)
		}
	}
	return orNil(recalled)
}

// orNil keeps an object that is not there from being something.
func orNil(obj object) any {
	if obj == nil {
		return nil
	}
	return obj
}

func (it *item) peek() (obj object, known bool) {
	it.mu.Lock()
	defer it.mu.Unlock()
	return it.obj, it.known
}

func (it *item) isKnown() bool {
	_, known := it.peek()
	return known
}
