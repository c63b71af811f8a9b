package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/everynode/everynode/internal/agent/watch"
)

// How often things are looked at. While the node is not ready it looks often, so that readiness is
// reported within milliseconds of becoming true; a node that is ready has no reason to hurry.
const (
	measureEvery   = 10 * time.Second
	unreadyEvery   = 20 * time.Millisecond // for the first unreadyHurry after a change
	unreadyHurry   = 15 * time.Second
	unreadyCalm    = time.Second
	reportAtLeast  = 5 * time.Minute
	measureTimeout = 5 * time.Second
	// startPatience is how long after its start an agent waits with bad news.
	startPatience = 5 * time.Second
)

// Runtime is the part of the CRI that tells a node how its runtime is.
type Runtime interface {
	Version(ctx context.Context, apiVersion string) (*runtimeapi.VersionResponse, error)
	Status(ctx context.Context, verbose bool) (*runtimeapi.StatusResponse, error)
}

// Options of a Node. All fields without a default are required, except Labels and OnNode.
type Options struct {
	// Name is the Node's name; Labels are set on it in addition to those of every node.
	Name   string
	Labels map[string]string
	// IP is the address the other nodes reach this one at.
	IP net.IP
	// Port is where the agent's own API listens.
	Port int
	// DataDir names the file system whose room is reported.
	DataDir string
	Client  kubernetes.Interface
	Runtime Runtime
	// NetworkReady says why pods cannot have a network yet; nil is ready.
	NetworkReady func() error
	// Pressure tells which pressure conditions hold. Default: none does.
	Pressure func(ctx context.Context) []corev1.NodeConditionType
	// Allocatable is what of a capacity pods may ask for. Default: all of it.
	Allocatable func(capacity corev1.ResourceList) corev1.ResourceList
	// ShuttingDown tells that the machine is about to. Default: it is not.
	ShuttingDown func() bool
	// OnNode is called with each state of the Node as the server has it, one call at a time.
	OnNode func(*corev1.Node)
}

// Validate reports the first option that is missing or wrong.
func (o *Options) Validate() error {
	switch {
	case o.Name == "":
		return errors.New("node: Name is not set")
	case o.IP == nil:
		return errors.New("node: IP is not set: it must be an address of this machine")
	case o.DataDir == "":
		return errors.New("node: DataDir is not set")
	case o.Client == nil, o.Runtime == nil:
		return errors.New("node: Client and Runtime must be set")
	}
	return ValidateLabels(o.Labels)
}

// Node reports one machine to the API server.
type Node struct {
	o       Options
	machine machine
	started time.Time

	// first is closed by the first status that was written.
	first     chan struct{}
	firstOnce sync.Once
	// poked wakes the reporting loop before its time.
	poked chan struct{}
	// lost is set once the Node was deleted, or taken over by another agent.
	lost atomic.Bool
	// stopLease ends the heartbeat; it belongs to the goroutine that follows the Node.
	stopLease context.CancelFunc
	tasks     sync.WaitGroup

	mu      sync.Mutex
	current *corev1.Node // as last seen on the server; nil before registration
	joinCSR string       // who the name was reserved for when this agent registered

	// Owned by the reporting loop.
	version      string // of the runtime, as last heard
	strictGroups bool   // the runtime knows supplementalGroupsPolicy, as last heard
	versionKnown bool   // it has not been away since
	reported     time.Time
	wasReady     bool
}

// New checks the options and returns a Node that does nothing until Run.
func New(o Options) (*Node, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.NetworkReady == nil {
		o.NetworkReady = func() error { return nil }
	}
	if o.Pressure == nil {
		o.Pressure = func(context.Context) []corev1.NodeConditionType { return nil }
	}
	if o.Allocatable == nil {
		o.Allocatable = func(capacity corev1.ResourceList) corev1.ResourceList { return capacity }
	}
	if o.ShuttingDown == nil {
		o.ShuttingDown = func() bool { return false }
	}
	if o.OnNode == nil {
		o.OnNode = func(*corev1.Node) {}
	}
	return &Node{
		o:       o,
		machine: newMachine("/", o.DataDir),
		first:   make(chan struct{}),
		poked:   make(chan struct{}, 1),
	}, nil
}

// Run registers the node and reports on it until ctx ends.
func (n *Node) Run(ctx context.Context) error {
	ctx = klog.NewContext(ctx, klog.LoggerWithValues(klog.FromContext(ctx), "node", n.o.Name))
	n.started = time.Now()
	if err := n.register(ctx); err != nil {
		return err
	}
	defer n.tasks.Wait()
	n.startLease(ctx)
	n.tasks.Go(func() { n.follow(ctx) })
	n.report(ctx)
	return nil
}

// Poke makes the node look at itself now, because the caller knows that something has changed.
func (n *Node) Poke() {
	select {
	case n.poked <- struct{}{}:
	default:
	}
}

// Reported is closed once the server has this machine's status, addresses included.
func (n *Node) Reported() <-chan struct{} { return n.first }

// Current is the Node as the server last had it; nil before registration. It must not be changed.
func (n *Node) Current() *corev1.Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.current
}

// Capacity is all that this machine has.
func (n *Node) Capacity() (corev1.ResourceList, error) { return n.machine.capacity() }

// Allocatable is what pods may ask this machine for, known before registration too.
func (n *Node) Allocatable() corev1.ResourceList {
	capacity, err := n.machine.capacity()
	if err != nil {
		return nil
	}
	return n.o.Allocatable(capacity)
}

// follow keeps current up to date and hands each state of the Node on.
func (n *Node) follow(ctx context.Context) {
	watch.Run(ctx, n.o.Client, n.o.Client.CoreV1().Nodes(), &corev1.Node{}, watch.Options{Name: "own-node", Fields: "metadata.name=" + n.o.Name},
		watch.Handler[*corev1.Node]{
			Set:    func(node *corev1.Node) { n.seen(ctx, node) },
			Remove: func(*corev1.Node) { n.lose(ctx, "it was deleted through the API") },
			Replace: func(nodes []*corev1.Node) {
				if len(nodes) == 0 {
					n.lose(ctx, "it was deleted through the API")
				}
				for _, node := range nodes {
					n.seen(ctx, node)
				}
			},
		})
}

// seen takes in a state of the Node that the server has.
func (n *Node) seen(ctx context.Context, node *corev1.Node) {
	n.mu.Lock()
	other := node.UID != n.current.UID && node.Annotations[joinAnnotation] != n.joinCSR
	changed := n.current.Spec.PodCIDR != node.Spec.PodCIDR
	if !other {
		n.current = node
	}
	n.mu.Unlock()
	if other {
		n.lose(ctx, "another agent has joined under this name")
		return
	}
	if n.lost.CompareAndSwap(true, false) {
		klog.FromContext(ctx).Info("The Node exists again; reporting to it")
		n.startLease(ctx)
		changed = true
	}
	n.o.OnNode(node)
	if changed {
		n.Poke()
	}
}

// lose stops the reports. Like the kubelet, a running agent does not make its Node again: whoever
// deleted it meant this machine to leave, and a new agent may be taking the name.
func (n *Node) lose(ctx context.Context, why string) {
	if n.lost.CompareAndSwap(false, true) {
		n.stopLease()
		klog.FromContext(ctx).Error(errors.New(why), "This machine's Node is gone; its pods will be stopped and nothing more is reported. To bring the node back, restart the agent")
	}
}

// addresses are where others find this node; the host name is the node's name, as the kubelet with
// an overridden host name has it.
func (n *Node) addresses() []corev1.NodeAddress {
	return []corev1.NodeAddress{
		{Type: corev1.NodeInternalIP, Address: n.o.IP.String()},
		{Type: corev1.NodeHostName, Address: n.o.Name},
	}
}

// DefaultIP is the address to give when none was chosen: the one this machine sends from on its
// default route, else its first global unicast address.
func DefaultIP() (net.IP, error) {
	// Nothing is sent: connecting a UDP socket only makes the kernel choose the source address.
	for _, target := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} {
		conn, err := net.Dial("udp", target)
		if err != nil {
			continue
		}
		ip := conn.LocalAddr().(*net.UDPAddr).IP
		_ = conn.Close()
		if ip.IsGlobalUnicast() {
			return ip, nil
		}
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("node address: %w", err)
	}
	if ip := firstGlobal(addrs); ip != nil {
		return ip, nil
	}
	host, _ := os.Hostname()
	return nil, fmt.Errorf("node address: %s has no default route and no address other machines could reach; set one with --node-ip", host)
}

// firstGlobal prefers IPv4, which pod ranges and routes between nodes are made of.
func firstGlobal(addrs []net.Addr) net.IP {
	var first net.IP
	for _, addr := range addrs {
		n, ok := addr.(*net.IPNet)
		if !ok || !n.IP.IsGlobalUnicast() {
			continue
		}
		if n.IP.To4() != nil {
			return n.IP
		}
		if first == nil {
			first = n.IP
		}
	}
	return first
}
