package volumes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/everynode/everynode/internal/agent/downward"
	"github.com/everynode/everynode/internal/agent/objects"
)

// Facts is what a pod may learn of its node and of its own addresses.
type Facts = downward.Facts

// Volume is a volume that is ready on the host.
type Volume struct {
	// Path on the host: a directory, or for a hostPath whatever is there.
	Path string
	// ReadOnly volumes are mounted read-only whatever the container says.
	ReadOnly bool
	// Device: Path is a block device, for volumeDevices instead of volumeMounts.
	Device bool
}

// Options of a Manager.
type Options struct {
	// Root is the folder of all pods: D/pods.
	Root string
	// Objects hands out ConfigMaps, Secrets and tokens. If it is also an
	// objects.Registrar, Notifier or PersistentVolumes, these are used: pods are
	// registered by Setup and unregistered by Teardown, contents follow changes,
	// and claims can be mounted.
	Objects objects.Source
	// NodeName is the name of this node.
	NodeName string
	// ClusterCA returns the cluster's CA as PEM, or nil. It stands in for the
	// ConfigMap kube-root-ca.crt of a namespace so young that it has none yet.
	ClusterCA func() []byte
	// Node is this node as the API has it, against whose labels the nodeAffinity of
	// persistent volumes is checked; nil while it is not known. Default: no checks.
	Node func() *corev1.Node
	// Images shows images as folders. Nil: there are no image volumes.
	Images ImageMounter
	// RecursiveReadOnly says that the runtime can make mounts read-only recursively.
	RecursiveReadOnly bool
}

// Validate reports the first option that is missing.
func (o *Options) Validate() error {
	switch {
	case o.Root == "":
		return errors.New("volumes: Root is not set: it must name the folder of the pods")
	case o.Objects == nil:
		return errors.New("volumes: Objects is not set: without a source no configMap or secret can be read")
	}
	return nil
}

// Manager makes and removes the volumes of pods. Its methods may be called from
// any goroutine; calls for one pod wait for each other.
type Manager struct {
	o Options

	mu   sync.Mutex
	pods map[types.UID]*podVolumes
	// stale are the pods whose contents Run has to look at.
	stale map[types.UID]bool
	wake  chan struct{}
	// deaf ends the notifications of changes.
	deaf func()
	// disks serializes what is done to block devices.
	disks sync.Mutex
}

// podVolumes is what is known of one pod. mu serializes work on its files; the
// other fields are guarded by it too, but for the last two.
type podVolumes struct {
	uid types.UID
	mu  sync.Mutex

	pod   *corev1.Pod
	facts Facts
	// live are the volumes with contents that may change: name → when the next
	// look is due, zero if only a change makes one necessary.
	live map[string]time.Time
	// wrong is what was last said to be wrong with a volume.
	wrong map[string]string

	// refs is what the contents come from, due the earliest of live. Both are
	// guarded by the manager's mutex.
	refs map[objects.Ref]bool
	due  time.Time
}

// New returns a Manager. Invalid options are a programming error: it panics.
func New(o Options) *Manager {
	if err := o.Validate(); err != nil {
		panic(err)
	}
	m := &Manager{o: o, pods: map[types.UID]*podVolumes{}, stale: map[types.UID]bool{}, wake: make(chan struct{}, 1), deaf: func() {}}
	if n, ok := o.Objects.(objects.Notifier); ok {
		m.deaf = n.Subscribe(m.changed)
	}
	return m
}

// Setup makes the volumes that pod's containers mount and returns them by name.
// It may be called as often as one likes: volumes that are there stay as they are,
// and contents are brought up to date. After an agent's restart it must be called
// for running pods too, or their contents are not followed.
func (m *Manager) Setup(ctx context.Context, pod *corev1.Pod, f Facts) (map[string]Volume, error) {
	if err := checkNames(pod); err != nil {
		return nil, err
	}
	p := m.lock(pod.UID)
	defer p.mu.Unlock()
	if r, ok := m.o.Objects.(objects.Registrar); ok {
		r.Register(pod)
	}
	p.pod, p.facts, p.live = pod, f, map[string]time.Time{}
	used := mounted(&pod.Spec)
	m.follow(p, used) // before anything is read: no change may fall in between
	defer m.schedule(p)

	root, err := m.root()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(root, string(pod.UID)), 0o750); err != nil {
		return nil, fmt.Errorf("making the pod's folder: %w", err)
	}
	out := make(map[string]Volume, len(pod.Spec.Volumes))
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if !used[v.Name] || v.Image != nil {
			continue
		}
		ready, err := m.setup(ctx, p, layout{root, pod.UID}, v)
		if err != nil {
			return nil, fmt.Errorf("volume %q: %w", v.Name, err)
		}
		out[v.Name] = ready
	}
	return out, nil
}

func (m *Manager) setup(ctx context.Context, p *podVolumes, at layout, v *corev1.Volume) (Volume, error) {
	switch {
	case v.EmptyDir != nil:
		return emptyDir(p, at, v)
	case v.HostPath != nil:
		return hostPath(v.HostPath.Path, v.HostPath.Type)
	case v.PersistentVolumeClaim != nil:
		return m.claim(ctx, p, at, v.Name, v.PersistentVolumeClaim.ClaimName, v.PersistentVolumeClaim.ReadOnly)
	case v.Ephemeral != nil:
		return m.claim(ctx, p, at, v.Name, p.pod.Name+"-"+v.Name, false)
	}
	return m.contents(ctx, p, at, v)
}

// Update tells of new labels or annotations, which downwardAPI files show. It
// returns at once; Run does the work.
func (m *Manager) Update(pod *corev1.Pod) {
	m.mu.Lock()
	p := m.pods[pod.UID]
	m.mu.Unlock()
	if p == nil {
		return
	}
	go func() {
		p := m.lock(pod.UID)
		defer p.mu.Unlock()
		if p.pod == nil { // torn down meanwhile
			m.forget(p)
			return
		}
		p.pod = pod
		m.touch(pod.UID)
	}()
}

// lock returns the pod's state, locked.
func (m *Manager) lock(uid types.UID) *podVolumes {
	for {
		m.mu.Lock()
		p := m.pods[uid]
		if p == nil {
			p = &podVolumes{uid: uid}
			m.pods[uid] = p
		}
		m.mu.Unlock()
		p.mu.Lock()
		m.mu.Lock()
		current := m.pods[uid] == p
		m.mu.Unlock()
		if current {
			return p
		}
		p.mu.Unlock() // torn down while we waited
	}
}

// follow makes changes of what a pod's volumes show known to Run.
func (m *Manager) follow(p *podVolumes, used map[string]bool) {
	refs := map[objects.Ref]bool{}
	for i := range p.pod.Spec.Volumes {
		if v := &p.pod.Spec.Volumes[i]; used[v.Name] {
			for _, r := range objects.VolumeReferences(p.pod.Namespace, v) {
				refs[r] = true
			}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p.refs = refs
}

// schedule tells Run when to look at a pod next.
func (m *Manager) schedule(p *podVolumes) {
	var due time.Time
	for _, t := range p.live {
		due = earlier(due, t)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p.due = due
	m.signal()
}

func (m *Manager) forget(p *podVolumes) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.pods, p.uid)
	delete(m.stale, p.uid)
}

// touch makes Run look at a pod.
func (m *Manager) touch(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stale[uid] = true
	m.signal()
}

func (m *Manager) signal() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// earlier returns the earlier of two times, where zero means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
