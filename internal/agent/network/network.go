package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/agent/watch"
)

const (
	// checkEvery is how often the kernel is compared with what should be in it.
	checkEvery = time.Minute
	// retryFirst and retryMax bound the wait after a failure.
	retryFirst = 100 * time.Millisecond
	retryMax   = 10 * time.Second
)

// Options of a Network. All fields are required except StateFile, Recorder, NodeRef and Changed.
type Options struct {
	// NodeIP is the address other nodes reach this one at.
	NodeIP net.IP
	// Servers are where connections for the API server go.
	Servers *Servers
	// CNIConfDir is where the container runtime reads network configurations.
	CNIConfDir string
	// StateFile keeps the ranges in use, so that pods get a network after a reboot with no server in
	// sight. None if empty.
	StateFile string
	// IPAMDir is where host-local keeps the addresses in use.
	IPAMDir string
	// ClusterCIDR is the range of all pods, until the server publishes another.
	ClusterCIDR string
	// APIServiceIP is the ClusterIP of Service default/kubernetes, until SetAPIService says another.
	APIServiceIP string
	Client       kubernetes.Interface
	// Recorder gets events about NodeRef.
	Recorder record.EventRecorder
	NodeRef  runtime.Object
	// Changed is called when what Ready returns has changed.
	Changed func()
}

// Validate reports the first option that is missing or wrong.
func (o *Options) Validate() error {
	if o.NodeIP == nil || o.Client == nil || o.Servers == nil || o.CNIConfDir == "" || o.IPAMDir == "" {
		return errors.New("network: NodeIP, Client, Servers, CNIConfDir and IPAMDir must be set")
	}
	if _, err := netip.ParsePrefix(o.ClusterCIDR); err != nil {
		return fmt.Errorf("network: ClusterCIDR: %w", err)
	}
	if _, err := netip.ParseAddr(o.APIServiceIP); err != nil {
		return fmt.Errorf("network: APIServiceIP: %w", err)
	}
	return nil
}

// Network is this node's pod network.
type Network struct {
	o      Options
	routes *routeTable
	// bridgePort is the port on the bridge's address at which a server on loopback is reached; "" if
	// the server can be reached without.
	bridgePort string
	wake       chan struct{}
	listeners  []*listener

	mu      sync.Mutex
	want    desired
	applied desired
	err     error // of the last try
}

// desired is what the kernel and the runtime should know.
type desired struct {
	Pods    netip.Prefix `json:"pods"`
	Cluster netip.Prefix `json:"cluster"`
	Service netip.Addr   `json:"service"`
}

var errNoRange = errors.New("this node has no pod range yet")

// New checks the options and returns a Network that does nothing until Run.
func New(o Options) (*Network, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Recorder == nil {
		o.Recorder = &record.FakeRecorder{}
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	want := desired{Cluster: netip.MustParsePrefix(o.ClusterCIDR).Masked(), Service: netip.MustParseAddr(o.APIServiceIP)}
	return &Network{
		o:          o,
		routes:     newRouteTable(netAddr(o.NodeIP)),
		bridgePort: o.Servers.loopbackPort,
		wake:       make(chan struct{}, 1),
		want:       remembered(o.StateFile, want),
		err:        errNoRange,
	}, nil
}

// Run keeps the network as it should be until ctx ends, and leaves it there: pods go on using it.
func (n *Network) Run(ctx context.Context) error {
	ctx = klog.NewContext(ctx, klog.LoggerWithName(klog.FromContext(ctx), "network"))
	var tasks sync.WaitGroup
	defer tasks.Wait()
	tasks.Go(func() { n.followRoutes(ctx) })
	tasks.Go(func() { n.followServers(ctx) })
	defer n.stopListeners()
	n.keep(ctx)
	return nil
}

// Ready is nil once pods can be given a network.
func (n *Network) Ready() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.err
}

// SetNode takes in this node's Node.
func (n *Network) SetNode(node *corev1.Node) {
	if node.Spec.PodCIDR == "" {
		return // a range is never taken back from a Node
	}
	cidr, err := parsePodCIDR(node.Spec.PodCIDR)
	if err != nil {
		n.set(func(*desired) error { return err })
		return
	}
	n.set(func(d *desired) error { d.Pods = cidr; return nil })
}

// SetAPIService takes in the Service default/kubernetes.
func (n *Network) SetAPIService(service *corev1.Service) {
	if ip, err := netip.ParseAddr(service.Spec.ClusterIP); err == nil && ip.Is4() {
		n.set(func(d *desired) error { d.Service = ip; return nil })
	}
}

// set changes what is wanted and has it applied.
func (n *Network) set(change func(*desired) error) {
	n.mu.Lock()
	before := n.want
	err := change(&n.want)
	if err != nil {
		n.err = err
	}
	changed := n.want != before
	n.mu.Unlock()
	if err != nil {
		n.o.Changed()
	}
	if changed {
		select {
		case n.wake <- struct{}{}:
		default:
		}
	}
}

// keep applies what is wanted when it changes, and compares with the kernel now and then.
func (n *Network) keep(ctx context.Context) {
	retry, told := retryFirst, ""
	for {
		wait := checkEvery
		if err := n.apply(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, errNoRange) {
			klog.FromContext(ctx).Error(err, "The pod network is not ready; trying again", "after", retry)
			n.o.Recorder.Event(n.o.NodeRef, corev1.EventTypeWarning, "PodNetworkFailed", err.Error())
			wait, retry = retry, min(2*retry, retryMax)
		} else {
			retry = retryFirst
		}
		if why := n.routes.unreachable(); why != told {
			told = why
			if why != "" {
				n.o.Recorder.Event(n.o.NodeRef, corev1.EventTypeWarning, "PodRouteMissing", why)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-n.wake:
		case <-time.After(wait):
			n.routes.resync(ctx)
		}
	}
}

// apply makes the kernel and the runtime know what is wanted; where nothing has changed it only
// looks whether all is still there.
func (n *Network) apply(ctx context.Context) error {
	n.mu.Lock()
	want, applied := n.want, n.applied
	n.mu.Unlock()
	err := ensureServiceAddress(want.Service)
	if want.Pods.IsValid() {
		err = errors.Join(err, n.applyPods(ctx, want, applied))
	}
	err = errors.Join(err, n.applyListeners(ctx, want))
	if err == nil && !want.Pods.IsValid() {
		err = errNoRange
	}
	n.mu.Lock()
	before := n.err
	n.err = err
	if err == nil {
		n.applied = want
	}
	n.mu.Unlock()
	if (before == nil) != (err == nil) {
		n.o.Changed()
	}
	if err == nil && want != applied {
		remember(ctx, n.o.StateFile, want)
		klog.FromContext(ctx).Info("Pod network is ready", "podCIDR", want.Pods, "clusterCIDR", want.Cluster, "apiService", want.Service)
	}
	return err
}

func (n *Network) applyPods(ctx context.Context, want, applied desired) error {
	if err := ensureForwarding(); err != nil {
		return err
	}
	mtu := mtuTo(n.o.NodeIP)
	if err := ensureBridge(want.Pods, mtu); err != nil {
		return err
	}
	if err := n.applyFirewall(ctx, want, applied); err != nil {
		return err
	}
	conf, err := cniConf(want.Pods, n.o.IPAMDir, mtu)
	if err != nil {
		return err
	}
	// Last, because the runtime starts pods as soon as it sees it.
	if _, err := writeConf(n.o.CNIConfDir, conf); err != nil {
		return err
	}
	if other := overriding(n.o.CNIConfDir); other != "" && want != applied {
		klog.FromContext(ctx).Info("Pods get another network: its configuration sorts before this agent's", "configuration", other, "ours", confName)
	}
	return nil
}

// applyFirewall replaces the rules when they change. What is in the chains is ours alone, so later
// only the jumps to them are looked after, and the chains if those are gone.
func (n *Network) applyFirewall(ctx context.Context, want, applied desired) error {
	if want == applied && ensureJumps(ctx) == nil {
		return nil
	}
	port := n.bridgePort
	if port == "" {
		port = "6443"
	}
	return firewall{pods: want.Pods, cluster: want.Cluster, service: want.Service, apiPort: port}.ensure(ctx)
}

// followRoutes keeps the routes to the other nodes' pods in step with the published ones.
func (n *Network) followRoutes(ctx context.Context) {
	take := func(cm *corev1.ConfigMap) {
		cidr, err := netip.ParsePrefix(cm.Annotations[clusterCIDRAnnotation])
		if err == nil && cidr.Addr().Is4() {
			n.set(func(d *desired) error { d.Cluster = cidr.Masked(); return nil })
		}
	}
	watch.Run(ctx, n.o.Client, n.o.Client.CoreV1().ConfigMaps(routesNamespace), &corev1.ConfigMap{}, watch.Options{Name: "node-routes"},
		watch.Handler[*corev1.ConfigMap]{
			Set: func(cm *corev1.ConfigMap) {
				if isRoutes(cm) {
					take(cm)
					n.routes.set(ctx, cm.Name, cm.Data)
				}
			},
			Remove: func(cm *corev1.ConfigMap) {
				if isRoutes(cm) {
					n.routes.set(ctx, cm.Name, nil)
				}
			},
			Replace: func(all []*corev1.ConfigMap) {
				chunks := map[string]map[string]string{}
				for _, cm := range all {
					if isRoutes(cm) {
						take(cm)
						chunks[cm.Name] = cm.Data
					}
				}
				n.routes.replace(ctx, chunks)
			},
		})
}

// followServers keeps the forwarder's list of live servers.
func (n *Network) followServers(ctx context.Context) {
	take := func(all ...*discoveryv1.EndpointSlice) {
		var addresses []string
		for _, slice := range all {
			addresses = append(addresses, endpoints(slice)...)
		}
		n.o.Servers.setServers(addresses)
		klog.FromContext(ctx).V(2).Info("API servers", "addresses", addresses)
	}
	watch.Run(ctx, n.o.Client, n.o.Client.DiscoveryV1().EndpointSlices(corev1.NamespaceDefault), &discoveryv1.EndpointSlice{},
		watch.Options{Name: "api-servers", Fields: "metadata.name=kubernetes"},
		watch.Handler[*discoveryv1.EndpointSlice]{
			Set:     func(s *discoveryv1.EndpointSlice) { take(s) },
			Remove:  func(*discoveryv1.EndpointSlice) { take() },
			Replace: func(all []*discoveryv1.EndpointSlice) { take(all...) },
		})
}

// endpoints are the addresses at which the slice's ready members are reached.
func endpoints(slice *discoveryv1.EndpointSlice) []string {
	var out []string
	for _, port := range slice.Ports {
		if port.Port == nil || port.Name != nil && *port.Name != "https" {
			continue
		}
		for _, endpoint := range slice.Endpoints {
			if endpoint.Conditions.Ready != nil && !*endpoint.Conditions.Ready {
				continue
			}
			for _, address := range endpoint.Addresses {
				out = append(out, net.JoinHostPort(address, strconv.Itoa(int(*port.Port))))
			}
		}
	}
	return out
}

// listener is one place where connections to the API server are taken.
type listener struct {
	address string
	stop    context.CancelFunc
	ended   chan struct{}
}

// applyListeners takes connections at the API's ClusterIP, and, if the server listens on loopback
// only, at the bridge's address, where pods reach it by the server's own port. It moves with these
// addresses, and belongs to the goroutine of keep.
func (n *Network) applyListeners(ctx context.Context, want desired) error {
	addresses := []string{net.JoinHostPort(want.Service.String(), "443")}
	if n.bridgePort != "" && want.Pods.IsValid() {
		addresses = append(addresses, net.JoinHostPort(gatewayOf(want.Pods).String(), n.bridgePort))
	}
	n.listeners = slices.DeleteFunc(n.listeners, func(l *listener) bool {
		if slices.Contains(addresses, l.address) {
			return false
		}
		l.stop()
		<-l.ended
		return true
	})
	var errs []error
	for _, address := range addresses {
		if !slices.ContainsFunc(n.listeners, func(l *listener) bool { return l.address == address }) {
			errs = append(errs, n.listen(ctx, address))
		}
	}
	return errors.Join(errs...)
}

func (n *Network) listen(ctx context.Context, address string) error {
	socket, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", address)
	if errors.Is(err, unix.EADDRINUSE) && n.bridgePort != "" && strings.HasSuffix(address, ":"+n.bridgePort) {
		return nil // the server listens on all addresses itself
	}
	if err != nil {
		return fmt.Errorf("pods will not reach the API server: %w", err)
	}
	klog.FromContext(ctx).Info("Forwarding connections to the API server", "address", address)
	ctx, stop := context.WithCancel(ctx)
	l := &listener{address: address, stop: stop, ended: make(chan struct{})}
	n.listeners = append(n.listeners, l)
	go func() {
		defer close(l.ended)
		n.o.Servers.serve(ctx, socket)
	}()
	return nil
}

// stopListeners ends all of them, and the connections they have taken.
func (n *Network) stopListeners() {
	for _, l := range n.listeners {
		l.stop()
		<-l.ended
	}
	n.listeners = nil
}
