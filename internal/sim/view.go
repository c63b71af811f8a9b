package sim

import (
	"maps"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// view is what one consumer has seen: a watch for each kind of object, that begins with a consistent list, keeps
// the order of its own events, and otherwise lags, repeats itself, hangs, or breaks off and lists anew.
type view struct {
	w    *world
	see  func(change)
	over bool

	ds    *appsv1.DaemonSet
	nodes map[string]*corev1.Node
	pods  map[string]*corev1.Pod

	streams [3]stream // of the DaemonSet, nodes and pods
}

// stream is one watch.
type stream struct {
	coming  []coming // on their way, in order
	planned bool     // the next delivery is in the queue
	broken  bool     // until it lists anew
	hangs   time.Time
}

type coming struct {
	change
	at time.Time
}

// newView shows everything that is stored to see, now, and from then on what happens. DaemonSet first, then
// nodes, then pods, each by name.
func newView(w *world, see func(change)) *view {
	v := &view{w: w, see: see, nodes: map[string]*corev1.Node{}, pods: map[string]*corev1.Pod{}}
	w.store.watchers = append(w.store.watchers, v)
	for kind := range v.streams {
		v.list(kind)
	}
	return v
}

// close ends the view.
func (v *view) close() {
	v.over = true
	v.w.store.watchers = slices.DeleteFunc(v.w.store.watchers, func(o *view) bool { return o == v })
}

func kindOf(c *change) int {
	switch {
	case c.ds != nil:
		return 0
	case c.node != nil:
		return 1
	default:
		return 2
	}
}

// happened puts a change on its way.
func (v *view) happened(c change) {
	s := &v.streams[kindOf(&c)]
	if s.broken {
		return
	}
	at := v.w.now.Add(v.w.watchDelay())
	if at.Before(s.hangs) {
		at = s.hangs
	}
	if n := len(s.coming); n > 0 && at.Before(s.coming[n-1].at) {
		at = s.coming[n-1].at
	}
	s.coming = append(s.coming, coming{change: c, at: at})
	v.plan(s)
}

func (v *view) plan(s *stream) {
	if s.planned || len(s.coming) == 0 {
		return
	}
	s.planned = true
	v.w.at(s.coming[0].at, func() {
		s.planned = false
		if v.over {
			return
		}
		n := 0
		for n < len(s.coming) && !s.coming[n].at.After(v.w.now) {
			n++
		}
		due := s.coming[:n]
		s.coming = s.coming[n:]
		for i := range due {
			v.show(due[i].change)
		}
		clear(due)
		v.plan(s)
	})
}

// show delivers one change, now and then twice.
func (v *view) show(c change) {
	v.note(c)
	v.see(c)
	if v.w.chance(v.w.faults().repeated) {
		v.w.mishap("watch event repeated")
		v.see(c)
	}
}

// note keeps what was shown, which a later list is compared with.
func (v *view) note(c change) {
	switch {
	case c.ds != nil:
		v.ds = c.ds
	case c.node != nil && c.gone:
		delete(v.nodes, c.node.Name)
	case c.node != nil:
		v.nodes[c.node.Name] = c.node
	case c.gone:
		delete(v.pods, c.pod.Name)
	default:
		v.pods[c.pod.Name] = c.pod
	}
}

// hang holds back a watch: what happens meanwhile comes late, all of it.
func (v *view) hang(kind int, d time.Duration) { v.streams[kind].hangs = v.w.now.Add(d) }

// breakOff loses what is on its way, and what happens until the consumer lists anew.
func (v *view) breakOff(kind int, d time.Duration) {
	s := &v.streams[kind]
	s.broken = true
	s.coming = nil
	v.w.in(d, func() {
		s.broken = false
		if !v.over && v.w.o.bug != deaf {
			v.list(kind)
		}
	})
}

// list shows the differences between what is stored and what was shown: what came and went meanwhile never was,
// and an object that was replaced under its name goes before the new one comes, as informers' handlers see it.
func (v *view) list(kind int) {
	st := v.w.store
	switch kind {
	case 0:
		if st.ds != nil && st.ds != v.ds {
			v.show(change{ds: st.ds})
		}
	case 1:
		for _, name := range names(v.nodes, st.nodes) {
			switch was, is := v.nodes[name], st.nodes[name]; {
			case is == nil:
				v.show(change{node: was, gone: true})
			case is != was:
				v.show(change{node: is})
			}
		}
	default:
		for _, name := range names(v.pods, st.pods) {
			was, is := v.pods[name], st.pods[name]
			if was != nil && (is == nil || is.UID != was.UID) {
				v.show(change{pod: was, gone: true})
			}
			if is != nil && is != was {
				v.show(change{pod: is})
			}
		}
	}
}

// names are the keys of both, sorted.
func names[T any](a, b map[string]T) []string {
	all := slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b))
	slices.Sort(all)
	return slices.Compact(all)
}
