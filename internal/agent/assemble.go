package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/agent/config"
	"github.com/everynode/everynode/internal/agent/cri"
	"github.com/everynode/everynode/internal/agent/identity"
	"github.com/everynode/everynode/internal/agent/images"
	"github.com/everynode/everynode/internal/agent/logs"
	"github.com/everynode/everynode/internal/agent/metrics"
	"github.com/everynode/everynode/internal/agent/network"
	"github.com/everynode/everynode/internal/agent/node"
	"github.com/everynode/everynode/internal/agent/objects"
	"github.com/everynode/everynode/internal/agent/offline"
	"github.com/everynode/everynode/internal/agent/pods"
	"github.com/everynode/everynode/internal/agent/pressure"
	"github.com/everynode/everynode/internal/agent/seccomp"
	"github.com/everynode/everynode/internal/agent/shutdown"
	"github.com/everynode/everynode/internal/agent/stats"
	"github.com/everynode/everynode/internal/agent/streaming"
	"github.com/everynode/everynode/internal/agent/volumes"
)

func (o Options) identityDir() string { return filepath.Join(o.DataDir, "agent", "pki") }
func (o Options) podsDir() string     { return filepath.Join(o.DataDir, "pods") }
func (o Options) imagesDir() string   { return filepath.Join(o.DataDir, "images") }
func (o Options) cgroupRoot() string  { return "/everynode-" + o.NodeName }
func (o Options) offlineDir() string  { return filepath.Join(o.DataDir, "agent", "offline") }
func (o Options) pulledDir() string   { return filepath.Join(o.DataDir, "agent", "pulled") }
func (o Options) networkFile() string { return filepath.Join(o.DataDir, "agent", "network.json") }
func (o Options) sandboxProfile() string {
	return filepath.Join(o.DataDir, "agent", "sandbox-seccomp.json")
}
func (o Options) ipamDir() string { return filepath.Join(o.DataDir, "cni", "ipam") }

// listenAddress is where the node's own API listens.
func (o Options) listenAddress() string {
	host := ""
	if o.ListenLoopbackOnly {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, strconv.Itoa(o.ListenPort))
}

// parts is everything that works while the agent runs.
type parts struct {
	o        Options
	ip       net.IP
	identity *identity.Pending
	runtime  *cri.Connection
	client   kubernetes.Interface
	events   *events
	nodeRef  *corev1.ObjectReference
	node     *node.Node
	network  *network.Network
	services *services
	objects  *objects.Cache
	volumes  *volumes.Manager
	pods     *pods.Manager
	logs     *logs.Rotator
	pulled   *images.Provenance
	garbage  *images.Collector
	guard    *pressure.Guard
	shutdown *shutdown.Watcher
	stats    *stats.Provider
	settings config.Settings
	// preloaded is closed once the images that came with the machine are there.
	preloaded chan struct{}

	// manifests is the folder of static pods; noManifests why there is none, if that has a reason.
	manifests, noManifests string
	// offline remembers pods; nil if that is not wanted.
	offline *offline.Keeper
}

// assemble makes the parts and connects them; nothing works yet.
func assemble(o Options, ip net.IP, runtime *cri.Connection) (*parts, error) {
	p := &parts{o: o, ip: ip, runtime: runtime, preloaded: make(chan struct{}), nodeRef: &corev1.ObjectReference{
		// The kubelet's events carry the name as UID, and kubectl looks for them so.
		APIVersion: "v1", Kind: "Node", Name: o.NodeName, UID: types.UID(o.NodeName),
	}}
	p.settings, _ = o.Upkeep.Settings() // Validate has seen them
	servers := network.NewServers(o.Server)
	var err error
	p.identity, err = identity.New(identity.Options{
		Server: o.Server, TokenFile: o.TokenFile, NodeName: o.NodeName, Dir: o.identityDir(), Dial: servers.DialContext,
		Persistent: os.Getenv("NOTIFY_SOCKET") != "", Waiting: tellWaiting,
	})
	if err != nil {
		return nil, err
	}
	if p.client, err = kubernetes.NewForConfig(p.identity.Config()); err != nil {
		return nil, fmt.Errorf("client of the API server: %w", err)
	}
	p.events = newEvents(p.client, o.NodeName, func() <-chan struct{} { return p.pods.Calm() })
	p.network, err = network.New(network.Options{
		NodeIP: ip, Servers: servers, CNIConfDir: o.CNIConfDir, StateFile: o.networkFile(), IPAMDir: o.ipamDir(),
		ClusterCIDR: o.ClusterCIDR, APIServiceIP: o.APIServiceIP, Client: p.client,
		Recorder: p.events.recorder, NodeRef: p.nodeRef,
		Changed: func() { p.node.Poke() },
	})
	if err != nil {
		return nil, err
	}
	p.node, err = node.New(node.Options{
		Name: o.NodeName, Labels: o.NodeLabels, IP: ip, Port: o.ListenPort, DataDir: o.DataDir,
		Client: p.client, Runtime: runtime.Runtime, NetworkReady: p.network.Ready, OnNode: p.setNode,
		Allocatable:  p.allocatable,
		Pressure:     func(ctx context.Context) []corev1.NodeConditionType { return p.guard.Conditions(ctx) },
		ShuttingDown: func() bool { return p.shutdown.ShuttingDown() },
	})
	if err != nil {
		return nil, err
	}
	p.services = newServices(p.client, p.network.SetAPIService)
	if err := p.assemblePods(); err != nil {
		return nil, err
	}
	if err := p.assembleUpkeep(); err != nil {
		return nil, err
	}
	metrics.Register(o.NodeName, p.pods.Pods)
	return p, nil
}

// setNode takes in this node's Node as the server has it.
func (p *parts) setNode(node *corev1.Node) {
	p.network.SetNode(node)
	p.pods.SetNode(node.UID)
}

func (p *parts) assemblePods() error {
	p.objects = objects.New(p.client)
	var err error
	if err = p.assembleOffline(); err != nil {
		return err
	}
	if p.pulled, err = images.OpenProvenance(p.o.pulledDir()); err != nil {
		return err
	}
	volumeOptions := volumes.Options{Root: p.o.podsDir(), Objects: p.objects, NodeName: p.o.NodeName, ClusterCA: p.identity.CA, Node: p.node.Current}
	sandboxProfile := ""
	if p.runtime.Name == "containerd" {
		sandboxProfile = p.o.sandboxProfile()
		if err := seccomp.WriteSandbox(sandboxProfile); err != nil {
			return err
		}
		volumeOptions.Images = &images.Mounter{Socket: cri.SocketPath(p.o.RuntimeEndpoint)}
	}
	if err := volumeOptions.Validate(); err != nil {
		return err
	}
	p.volumes = volumes.New(volumeOptions)
	limits, err := p.cgroupLimits()
	if err != nil {
		return err
	}
	facts := volumes.Facts{NodeName: p.o.NodeName, HostIPs: []string{p.ip.String()}, Allocatable: p.node.Allocatable()}
	p.pods, err = pods.New(pods.Options{
		Offline: p.keeper(), Provenance: p.pulled,
		NodeName: p.o.NodeName, RootDir: p.o.podsDir(), CgroupRoot: p.o.cgroupRoot(), SandboxProfile: sandboxProfile,
		Endpoint: p.o.RuntimeEndpoint, Client: p.client, Runtime: p.runtime.Runtime, Images: p.runtime.Images,
		Volumes: p.volumes, Objects: p.objects, Services: p.services.List,
		NodeFacts: func() volumes.Facts { return facts },
		Node:      p.node.Current, Refuse: p.refuse, CgroupLimits: limits,
		DNS: network.DNS{}.For, Recorder: p.events.recorder, NetworkReady: p.network.Ready,
		RuntimeHandler: p.runtimeHandler, AllowedUnsafeSysctls: p.o.AllowedUnsafeSysctls,
	})
	return err
}

// runtimeHandler is what the runtime calls a RuntimeClass.
func (p *parts) runtimeHandler(class string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	rc, err := p.client.NodeV1().RuntimeClasses().Get(ctx, class, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	return rc.Handler, nil
}

// part is one of the things that work side by side.
type part struct {
	name string
	run  func(context.Context) error
}

func (p *parts) list() []part {
	return []part{
		{"identity", p.identity.Run},
		{"service manager", p.joined(tellReady)},
		{"node", p.joined(p.register)},
		{"network", p.network.Run},
		{"services", p.services.run},
		{"volumes", p.volumes.Run},
		{"pods", p.runPods},
		{"logs", p.logs.Run},
		{"image garbage", p.collectImages},
		{"pressure", p.guard.Run},
		{"shutdown", p.shutdown.Run},
		{"static pods", p.runStatic},
		{"offline pods", p.runOffline},
		{"node API", p.joined(p.serveAPI)},
		{"serving certificate", p.joined(p.serveCertified)},
	}
}

// joined begins with what is of no use before the node has an identity when it has one.
func (p *parts) joined(run func(context.Context, *identity.Identity) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if id := p.identity.Identity(ctx); id != nil {
			return run(ctx, id)
		}
		return nil
	}
}

// tellReady lets under systemd start what waits for this service, and so for a node that has joined.
func tellReady(ctx context.Context, _ *identity.Identity) error {
	notify(ctx, daemon.SdNotifyReady)
	return nil
}

// tellWaiting has `systemctl status` say what keeps this node from joining; nil is nothing any more.
func tellWaiting(reason error) {
	status := "STATUS="
	if reason != nil {
		status += reason.Error()
	}
	notify(context.Background(), status)
}

// notify tells systemd, if it follows this process.
func notify(ctx context.Context, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		klog.FromContext(ctx).Info("Telling systemd failed", "err", err)
	}
}

// register makes this machine's Node and reports on it.
func (p *parts) register(ctx context.Context, _ *identity.Identity) error { return p.node.Run(ctx) }

// serveAPI serves the node's own API, of which nobody can be let in before there is a CA to know them by.
func (p *parts) serveAPI(ctx context.Context, id *identity.Identity) error {
	api, err := streaming.New(streaming.Options{
		Address: p.o.listenAddress(), NodeName: p.o.NodeName, Certificate: id.ServingCertificate(), ClientCA: id.CA(),
		Client: p.client, Pods: p.pods, Runtime: p.runtime.Runtime, Stats: p.stats, Config: p.o.kubeletConfiguration(), Healthy: p.pods.Healthy,
	})
	if err != nil {
		return err
	}
	return api.Run(ctx)
}

// runPods runs pods once the images that came with the machine can be used.
func (p *parts) runPods(ctx context.Context) error {
	if err := p.preload(ctx); err != nil && ctx.Err() == nil {
		klog.FromContext(ctx).Error(err, "Some images could not be imported")
		p.events.recorder.Event(p.nodeRef, corev1.EventTypeWarning, "ImageImportFailed", err.Error())
	}
	close(p.preloaded)
	if err := p.sweepLeases(ctx); err != nil && ctx.Err() == nil {
		klog.FromContext(ctx).Error(err, "Pod addresses of sandboxes that are gone could not be given back")
	}
	return p.pods.Run(ctx)
}

func (p *parts) preload(ctx context.Context) error {
	if p.runtime.Name != "containerd" {
		klog.FromContext(ctx).Info("Image archives are imported into containerd only", "runtime", p.runtime.Name, "archives", p.o.imagesDir())
		return nil
	}
	return images.Preload(ctx, images.PreloadOptions{
		Socket: cri.SocketPath(p.o.RuntimeEndpoint), Dir: p.o.imagesDir(), Images: p.runtime.Images,
	})
}

func (p *parts) sweepLeases(ctx context.Context) error {
	sandboxes, err := p.runtime.Runtime.ListPodSandbox(ctx, nil)
	if err != nil {
		return err
	}
	known := make(map[string]bool, len(sandboxes))
	for _, sandbox := range sandboxes {
		known[sandbox.Id] = true
	}
	freed, err := network.SweepLeases(p.o.ipamDir(), func(id string) bool { return known[id] })
	if freed > 0 {
		klog.FromContext(ctx).Info("Gave back pod addresses of sandboxes that are gone", "addresses", freed)
	}
	return err
}

// serveCertified asks for the serving certificate once the Node has this machine's addresses, which
// the server checks it against.
func (p *parts) serveCertified(ctx context.Context, id *identity.Identity) error {
	select {
	case <-ctx.Done():
		return nil
	case <-p.node.Reported():
	}
	if err := id.Serving(ctx, []net.IP{p.ip}); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// close drops what nobody may wait for any more.
func (p *parts) close() {
	p.events.broadcaster.Shutdown()
	p.objects.Close()
}
