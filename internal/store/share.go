package store

import (
	"context"

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
	last := map[types.UID]runtime.Object{}
	return watch.Filter(w, func(e watch.Event) (watch.Event, bool) {
		s.see(last, e)
		return e, true
	}), nil
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
