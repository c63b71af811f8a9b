package volumes

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/everynode/everynode/internal/agent/downward"
	"github.com/everynode/everynode/internal/agent/objects"
)

// Facts is what a pod may learn of its node and of its own addresses.
type Facts = downward.Facts

// Volume is a volume that is ready on the host.
type Volume struct {
	// Path on the host; a directory, or for a hostPath whatever is there.
	Path string
	// ReadOnly volumes are mounted read-only whatever the container says.
	ReadOnly bool
}

// Options of a Manager.
type Options struct {
	// Root is the folder of all pods: D/pods.
	Root string
	// Objects hands out ConfigMaps, Secrets and tokens. If it is also an
	// objects.Registrar, Notifier or PersistentVolumes, these are used.
	Objects objects.Source
	// NodeName is the name of this node.
	NodeName string
	// ClusterCA returns the cluster's CA as PEM, or nil. It stands in for the
	// ConfigMap kube-root-ca.crt of a namespace so young that it has none yet.
	ClusterCA func() []byte
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
type Manager struct{ o Options }

// New returns a Manager. It panics on invalid options, which are a programming error.
func New(o Options) *Manager {
	if err := o.Validate(); err != nil {
		panic(err)
	}
	return &Manager{o: o}
}

var errSkeleton = errors.New("not built yet")

func (m *Manager) Setup(ctx context.Context, pod *corev1.Pod, f Facts) (map[string]Volume, error) {
	return nil, errSkeleton
}
func (m *Manager) Update(pod *corev1.Pod) {}
func (m *Manager) Mounts(pod *corev1.Pod, c *corev1.Container, vols map[string]Volume, expand func(string) string) ([]*runtimeapi.Mount, func(), error) {
	return nil, func() {}, errSkeleton
}
func (m *Manager) Teardown(ctx context.Context, uid types.UID) error { return errSkeleton }
func (m *Manager) Run(ctx context.Context) error                     { return errSkeleton }
func (m *Manager) Orphans(known func(types.UID) bool)                {}
