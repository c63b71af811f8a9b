package store

import (
	"context"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"
)

// Share makes a version of an object use the memory of the version before for what has not changed. Both are as
// decoded, nobody else has seen the new one yet, and what it holds afterwards must be equal to what it held.
type Share func(before, after runtime.Object)

// sharing is what a watch cache reads. The cache keeps every version of the last minute or more; each is decoded anew,
// though most of it is what the version before said.
func sharing(s storage.Interface, share Share) storage.Interface {
	if share == nil {
		return s
	}
	return sharedVersions{s, share}
}

type sharedVersions struct {
	storage.Interface
	share Share
}

// Watch implements storage.Interface. Watch caches call it once, and again after a failure.
func (s sharedVersions) Watch(ctx context.Context, key string, o storage.ListOptions) (watch.Interface, error) {
	w, err := s.Interface.Watch(ctx, key, o)
	if err != nil {
		return nil, err
	}
	v := &versions{from: w, events: make(chan watch.Event), done: make(chan struct{})}
	go v.run(s)
	return v, nil
}

// versions is a watch whose events have been through see.
type versions struct {
	from   watch.Interface
	events chan watch.Event
	done   chan struct{}
	once   sync.Once
}

// ResultChan implements watch.Interface.
func (v *versions) ResultChan() <-chan watch.Event { return v.events }

// Stop implements watch.Interface.
func (v *versions) Stop() {
	v.once.Do(func() { close(v.done) })
	v.from.Stop()
}

func (v *versions) run(s sharedVersions) {
	defer close(v.events)
	last := map[types.UID]runtime.Object{}
	for e := range v.from.ResultChan() {
		s.see(last, e)
		select {
		case v.events <- e:
		case <-v.done:
			return
		}
	}
}

func (s sharedVersions) see(last map[types.UID]runtime.Object, e watch.Event) {
	switch e.Type {
	case watch.Added, watch.Modified, watch.Deleted:
	default:
		return // no version of an object
	}
	m, err := meta.Accessor(e.Object)
	if err != nil {
		return
	}
	if before := last[m.GetUID()]; before != nil {
		s.share(before, e.Object)
	}
	if e.Type == watch.Deleted {
		delete(last, m.GetUID())
	} else {
		last[m.GetUID()] = e.Object
	}
}
