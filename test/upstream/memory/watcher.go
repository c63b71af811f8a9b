package memory

import (
	"cmp"
	"sync"

	"k8s.io/apimachinery/pkg/watch"
)

// watcher is one open watch. A reader that is behind holds writers up, so no event is ever lost.
type watcher struct {
	events chan watch.Event
	done   chan struct{}
	once   sync.Once
}

func (w *watcher) Stop()                          { w.once.Do(func() { close(w.done) }) }
func (w *watcher) ResultChan() <-chan watch.Event { return w.events }

// send returns false when the watch is over.
func (w *watcher) send(e watch.Event) bool {
	select {
	case <-w.done:
		return false
	case w.events <- e:
		return true
	}
}

func cmpNames(a, b string) int { return cmp.Compare(a, b) }
