package pods

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/everynode/everynode/internal/agent/cgroups"
	"github.com/everynode/everynode/internal/agent/images"
	"github.com/everynode/everynode/internal/agent/objects"
	"github.com/everynode/everynode/internal/agent/volumes"
	"github.com/everynode/everynode/internal/decide/podlife"
)

// Volumes makes the volumes of pods. *volumes.Manager is the real one.
type Volumes interface {
	Setup(ctx context.Context, pod *corev1.Pod, f volumes.Facts) (map[string]volumes.Volume, error)
	MountImage(ctx context.Context, uid types.UID, volume, ref string) (volumes.Volume, error)
	Update(pod *corev1.Pod)
	Mounts(pod *corev1.Pod, c *corev1.Container, vols map[string]volumes.Volume, expand func(string) string) ([]*runtimeapi.Mount, func(), error)
	Teardown(ctx context.Context, uid types.UID) error
	Orphans(known func(types.UID) bool)
}

// Keeper remembers the pods of DaemonSets over a boot. *offline.Keeper is the real one. No call
// may block.
type Keeper interface {
	// Keep remembers a pod, or forgets one that is not to be remembered (any more).
	Keep(pod *corev1.Pod)
	// Drop forgets a pod.
	Drop(uid types.UID)
	// Only forgets all pods but those of which has is true.
	Only(has func(types.UID) bool)
	// Recall returns the remembered pods, whose objects can be had from now on until Heard.
	Recall(ctx context.Context) []*corev1.Pod
	// Heard says that the server has answered.
	Heard()
}

// Options of a Manager. Fields without a comment on their default are required.
type Options struct {
	// NodeName is the name under which the pods are bound.
	NodeName string
	// RootDir is the folder of the pods' volumes, D/pods.
	RootDir string
	// FilesDir holds what the agent itself gives to containers, in FilesDir/UID: hosts
	// files and termination messages, which outlive the volumes. Default: beside
	// RootDir, D/podfiles.
	FilesDir string
	// SeccompDir holds the profiles that pods name as Localhost. Default: D/seccomp.
	SeccompDir string
	// SandboxProfile is the seccomp profile of sandboxes, a file; see package seccomp. Default: the
	// runtime's own, which is also what the handlers of runtime classes get.
	SandboxProfile string
	// ClusterDomain ends the names of pods with a subdomain. Default cluster.local.
	ClusterDomain string
	// LogDir is where container logs go. Default /var/log/pods.
	LogDir string
	// LogLinkDir gets the symlinks NAME_NS_CONTAINER-ID.log. Default /var/log/containers.
	LogLinkDir string
	// CgroupRoot is the cgroup under which pods live, such as /everynode-NODENAME.
	// Empty: the runtime's default, without limits for pods as a whole.
	CgroupRoot string
	// CgroupLimits are those of all pods together. Default: none.
	CgroupLimits cgroups.Limits
	// Endpoint of the runtime, for containerd's event stream. Empty: lists only.
	Endpoint string

	// Offline remembers DaemonSets' pods, which then run while no server has answered since the
	// start. Default: none do.
	Offline Keeper

	Client  kubernetes.Interface
	Runtime internalapi.RuntimeService
	Images  internalapi.ImageManagerService
	Volumes Volumes
	Objects objects.Source
	// Services are those whose variables containers get; wait says that it is worth a moment to
	// learn of them. Default: none.
	Services func(wait bool) []*corev1.Service
	// NodeFacts are this node's name, addresses and allocatable resources.
	NodeFacts func() volumes.Facts
	// Node is this node as the API has it, or nil if that is not known (yet). Default: not known.
	Node func() *corev1.Node
	// FreshNode asks the API for it. Default: the Client does.
	FreshNode func(ctx context.Context) (*corev1.Node, error)
	// AllowedUnsafeSysctls are sysctls that pods may set beside the safe ones, by name or
	// as net.core.*. Default: none.
	AllowedUnsafeSysctls []string
	// Refuse says why the node takes no pod, or not this one (pressure, shutdown), or nil.
	// Default: it takes all.
	Refuse func(pod *corev1.Pod) *podlife.Verdict
	// DNS is the resolver configuration of a pod. Default: the runtime's own.
	DNS func(*corev1.Pod) (*runtimeapi.DNSConfig, error)
	// Recorder gets the pods' events. Default: none are recorded.
	Recorder record.EventRecorder
	// NetworkReady says why pods that need the pod network cannot start yet.
	// Default: it is always ready.
	NetworkReady func() error
	// RuntimeHandler translates a RuntimeClass into the runtime's handler.
	// Default: the class's name is taken for the handler.
	RuntimeHandler func(class string) (string, error)
	// MaxStarts bounds the sandboxes and containers being started at once. Default 15.
	MaxStarts int
	// Provenance remembers which pods may use which image. Default: all may use all.
	Provenance *images.Provenance
	// MaxPulls bounds the images being pulled at once. Default 4.
	MaxPulls int
	// Relist is the interval of full lists of the runtime's containers where no
	// event stream stands. Default 1 s; ten times that where one stands.
	Relist time.Duration
}

// Validate fills in defaults and reports the first required option that is missing.
func (o *Options) Validate() error {
	o.setDefaults()
	switch {
	case o.NodeName == "":
		return errors.New("pods: NodeName is not set")
	case o.RootDir == "":
		return errors.New("pods: RootDir is not set: it must name the folder of the pods' files")
	case o.Client == nil, o.Runtime == nil, o.Images == nil, o.Volumes == nil, o.Objects == nil, o.NodeFacts == nil:
		return errors.New("pods: Client, Runtime, Images, Volumes, Objects and NodeFacts must be set")
	}
	return nil
}

func (o *Options) setDefaults() {
	if o.FilesDir == "" {
		o.FilesDir = filepath.Join(filepath.Dir(o.RootDir), "podfiles")
	}
	if o.SeccompDir == "" {
		o.SeccompDir = filepath.Join(filepath.Dir(o.RootDir), "seccomp")
	}
	if o.ClusterDomain == "" {
		o.ClusterDomain = "cluster.local"
	}
	if o.LogDir == "" {
		o.LogDir = "/var/log/pods"
	}
	if o.LogLinkDir == "" {
		o.LogLinkDir = "/var/log/containers"
	}
	if o.Offline == nil {
		o.Offline = nothing{}
	}
	if o.Services == nil {
		o.Services = func(bool) []*corev1.Service { return nil }
	}
	if o.Node == nil {
		o.Node = func() *corev1.Node { return nil }
	}
	if o.FreshNode == nil {
		o.FreshNode = func(ctx context.Context) (*corev1.Node, error) {
			return o.Client.CoreV1().Nodes().Get(ctx, o.NodeName, metav1.GetOptions{})
		}
	}
	if o.Refuse == nil {
		o.Refuse = func(*corev1.Pod) *podlife.Verdict { return nil }
	}
	if o.DNS == nil {
		o.DNS = func(*corev1.Pod) (*runtimeapi.DNSConfig, error) { return nil, nil }
	}
	if o.Recorder == nil {
		o.Recorder = &record.FakeRecorder{}
	}
	if o.NetworkReady == nil {
		o.NetworkReady = func() error { return nil }
	}
	if o.RuntimeHandler == nil {
		o.RuntimeHandler = func(class string) (string, error) { return class, nil }
	}
	if o.MaxStarts == 0 {
		o.MaxStarts = 15
	}
	if o.MaxPulls == 0 {
		o.MaxPulls = 4
	}
	if o.Relist == 0 {
		o.Relist = time.Second
	}
}
