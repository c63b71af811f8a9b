package volumes

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/agent/objects"
)

const (
	// retryAfter is when contents that could not be read or written are tried again.
	retryAfter = 30 * time.Second
	// atOnce is how many pods are refreshed at the same time.
	atOnce = 4
)

// Run keeps the contents of volumes fresh until ctx ends: it follows changes of
// ConfigMaps and Secrets at once, and renews tokens in time. It sleeps in between.
func (m *Manager) Run(ctx context.Context) error {
	defer m.deaf()
	var working sync.WaitGroup
	defer working.Wait()
	slots := make(chan struct{}, atOnce)
	for {
		for _, uid := range m.takeStale(time.Now()) {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			working.Go(func() {
				defer func() { <-slots }()
				m.refresh(ctx, uid)
			})
		}
		if !m.sleep(ctx) {
			return nil
		}
	}
}

// changed marks the pods that show an object.
func (m *Manager) changed(ref objects.Ref) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for uid, p := range m.pods {
		if p.refs[ref] {
			m.stale[uid] = true
			m.signal()
		}
	}
}

// takeStale returns the pods to look at now, and notes that someone does.
func (m *Manager) takeStale(now time.Time) []types.UID {
	m.mu.Lock()
	defer m.mu.Unlock()
	for uid, p := range m.pods {
		if !p.due.IsZero() && !now.Before(p.due) {
			m.stale[uid] = true
			p.due = time.Time{} // refresh sets the next
		}
	}
	out := make([]types.UID, 0, len(m.stale))
	for uid := range m.stale {
		out = append(out, uid)
		delete(m.stale, uid)
	}
	return out
}

// sleep waits for the next thing to do and reports whether ctx still lives.
func (m *Manager) sleep(ctx context.Context) bool {
	var due time.Time
	m.mu.Lock()
	for _, p := range m.pods {
		due = earlier(due, p.due)
	}
	m.mu.Unlock()
	var alarm <-chan time.Time
	if !due.IsZero() {
		timer := time.NewTimer(time.Until(due))
		defer timer.Stop()
		alarm = timer.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-m.wake:
	case <-alarm:
	}
	return ctx.Err() == nil
}

// refresh brings the contents of a pod's volumes up to date. What fails keeps its
// old contents and is tried again.
func (m *Manager) refresh(ctx context.Context, uid types.UID) {
	p := m.lock(uid)
	defer p.mu.Unlock()
	if p.pod == nil { // torn down, or never set up
		m.forget(p)
		return
	}
	defer m.schedule(p)
	root, err := m.root()
	if err != nil {
		klog.FromContext(ctx).Error(err, "Volumes cannot be refreshed", "pod", klog.KObj(p.pod))
		return
	}
	for i := range p.pod.Spec.Volumes {
		v := &p.pod.Spec.Volumes[i]
		if _, live := p.live[v.Name]; !live {
			continue
		}
		_, err := m.contents(ctx, p, layout{root, uid}, v)
		if ctx.Err() == nil && p.news(v.Name, err) {
			klog.FromContext(ctx).Error(err, "A volume keeps its old contents until this is mended", "pod", klog.KObj(p.pod), "volume", v.Name)
		}
	}
}

// news notes what is wrong with a volume, and tells whether it is worth a line: a
// ConfigMap may well be gone for as long as the pod runs.
func (p *podVolumes) news(volume string, err error) bool {
	if err == nil {
		delete(p.wrong, volume)
		return false
	}
	if p.wrong[volume] == err.Error() {
		return false
	}
	if p.wrong == nil {
		p.wrong = map[string]string{}
	}
	p.wrong[volume] = err.Error()
	return true
}
