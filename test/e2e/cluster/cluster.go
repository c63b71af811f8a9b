package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/everynode/everynode/internal/cli/containerd"
	"github.com/everynode/everynode/internal/cli/layout"
)

// Addresses of the switch's network.
const (
	switchAddress = "10.206.0.1"
	// ServerURL is where the server of a cluster is.
	ServerURL = "https://" + switchAddress + ":6443"
	dataDir   = layout.DefaultDataDir // in every machine
)

// Programs are what the tests are about.
type Programs struct {
	Everynode string // bin/everynode
	Kubectl   string // the stock kubectl
	Images    []string
}

// Cluster is a server and nodes.
type Cluster struct {
	Switch *Machine
	Server *Process
	Nodes  []*Node

	t           testing.TB
	programs    Programs
	serverFlags []string
	layout      layout.Layout
	machines    int

	client *kubernetes.Clientset
	config *rest.Config
}

// Node is a machine with a container runtime and an agent.
type Node struct {
	*Machine
	Address    string
	Containerd *Process
	Agent      *Process
	// Verbose makes containerd log all that it does.
	Verbose bool

	cluster *Cluster
	flags   []string
}

// New starts a switch and a server in it, with more flags if given, and waits until it is ready.
func New(t testing.TB, p Programs, serverFlags ...string) *Cluster {
	t.Helper()
	c := NewSwitch(t, p, serverFlags...)
	c.StartServer()
	c.AwaitServer()
	return c
}

// NewSwitch is New without a server: StartServer will start it with the flags.
func NewSwitch(t testing.TB, p Programs, serverFlags ...string) *Cluster {
	t.Helper()
	l, err := layout.New("", "")
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{t: t, programs: p, serverFlags: serverFlags, layout: l, Switch: NewMachine(t, "switch")}
	if err := c.Switch.network(makeBridge); err != nil {
		t.Fatalf("switch: %v", err)
	}
	return c
}

func makeBridge(h *netlink.Handle) error {
	if err := h.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}); err != nil {
		return err
	}
	if err := addAddress(h, "br0", switchAddress+"/24"); err != nil {
		return err
	}
	return linkUp(h, "br0")
}

// For is the same cluster for a subtest: what fails is that one.
func (c *Cluster) For(t testing.TB) *Cluster {
	of := *c
	of.t = t
	return &of
}

// StartServer starts the server; its data is what an earlier one left.
func (c *Cluster) StartServer() {
	c.t.Helper()
	argv := append([]string{c.programs.Everynode, "server", "--data-dir", dataDir, "--listen", switchAddress + ":6443", "-v", "1"}, c.serverFlags...)
	c.Server = c.Switch.Start("server", argv...)
}

// AwaitServer waits until the server says that it is ready, and returns how long it took.
func (c *Cluster) AwaitServer() time.Duration {
	c.t.Helper()
	began := time.Now()
	Await(c.t, "the server is ready", 60*time.Second, func(ctx context.Context) error {
		select {
		case <-c.Server.Done():
			return Fatal(fmt.Errorf("the server ended: %w", c.Server.err))
		default:
		}
		client, _, err := c.connect()
		if err != nil {
			return err
		}
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
	return time.Since(began)
}

// Programs are those of the cluster.
func (c *Cluster) Programs() Programs { return c.programs }

// Kubeconfig is the admin's, readable from everywhere.
func (c *Cluster) Kubeconfig() string {
	return c.Switch.Path(layout.Layout{DataDir: dataDir}.AdminKubeconfig())
}

// JoinToken is the content of the server's join-token file.
func (c *Cluster) JoinToken() string {
	c.t.Helper()
	text, err := os.ReadFile(c.Switch.Path(layout.Layout{DataDir: dataDir}.JoinToken()))
	if err != nil {
		c.t.Fatal(err)
	}
	return string(text)
}

// Client is the administrator's, connected from within the switch.
func (c *Cluster) Client() *kubernetes.Clientset {
	c.t.Helper()
	client, _, err := c.connect()
	if err != nil {
		c.t.Fatal(err)
	}
	return client
}

// Config is that of Client.
func (c *Cluster) Config() *rest.Config {
	c.t.Helper()
	_, config, err := c.connect()
	if err != nil {
		c.t.Fatal(err)
	}
	return rest.CopyConfig(config)
}

func (c *Cluster) connect() (*kubernetes.Clientset, *rest.Config, error) {
	if c.client != nil {
		return c.client, c.config, nil
	}
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		return nil, nil, err
	}
	config.Dial, config.QPS, config.Timeout = c.Switch.Dial, -1, 20*time.Second
	config.Proxy = http.ProxyURL(nil)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, nil, err
	}
	c.client, c.config = client, config
	return client, config, nil
}

// AddNode plugs a machine in and starts containerd and an agent, with more flags if given.
func (c *Cluster) AddNode(flags ...string) *Node {
	c.t.Helper()
	n := c.AddMachine()
	n.flags = flags
	n.StartContainerd()
	n.StartAgent(c.JoinToken())
	return n
}

// AddMachine plugs a machine in that runs nothing yet.
func (c *Cluster) AddMachine() *Node {
	c.t.Helper()
	c.machines++
	number := c.machines
	n := &Node{Machine: NewMachine(c.t, fmt.Sprintf("node%d", number)), Address: fmt.Sprintf("10.206.0.%d", 10+number), cluster: c}
	c.Nodes = append(c.Nodes, n)
	if err := c.plug(n, number); err != nil {
		c.t.Fatalf("%s: %v", n.Name, err)
	}
	c.provide(n)
	return n
}

// provide puts the images where the agent imports them from.
func (c *Cluster) provide(n *Node) {
	c.t.Helper()
	dir := n.Path(filepath.Join(dataDir, "images"))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		c.t.Fatal(err)
	}
	for _, image := range c.programs.Images {
		if err := os.Link(image, filepath.Join(dir, filepath.Base(image))); err != nil {
			c.t.Fatal(err)
		}
	}
}

// plug connects a machine to the switch's bridge, with a default route through it.
func (c *Cluster) plug(n *Node, number int) error {
	err := c.Switch.network(func(h *netlink.Handle) error {
		bridge, err := h.LinkByName("br0")
		if err != nil {
			return err
		}
		port := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("port%d", number)}, PeerName: "eth0", PeerNamespace: netlink.NsPid(n.PID())}
		if err := h.LinkAdd(port); err != nil {
			return err
		}
		if err := h.LinkSetMaster(port, bridge); err != nil {
			return err
		}
		return h.LinkSetUp(port)
	})
	if err != nil {
		return err
	}
	return n.network(func(h *netlink.Handle) error {
		if err := addAddress(h, "eth0", n.Address+"/24"); err != nil {
			return err
		}
		if err := linkUp(h, "eth0"); err != nil {
			return err
		}
		gateway, err := netlink.ParseAddr(switchAddress + "/24")
		if err != nil {
			return err
		}
		return h.RouteAdd(&netlink.Route{Gw: gateway.IP})
	})
}

// RoutePods lets the switch reach the pods of all nodes, as the router of a network would: the
// server's proxy to pods needs it.
func (c *Cluster) RoutePods() {
	c.t.Helper()
	for _, n := range c.Nodes {
		node, err := c.Client().CoreV1().Nodes().Get(context.Background(), n.Name, metav1.GetOptions{})
		if err != nil {
			c.t.Fatal(err)
		}
		pods, err := netlink.ParseIPNet(node.Spec.PodCIDR)
		if err != nil {
			c.t.Fatalf("%s: pod range: %v", n.Name, err)
		}
		if err := c.Switch.network(func(h *netlink.Handle) error {
			return h.RouteReplace(&netlink.Route{Dst: pods, Gw: net.ParseIP(n.Address)})
		}); err != nil {
			c.t.Fatalf("route to the pods of %s: %v", n.Name, err)
		}
	}
}

// LaunchContainerd starts the node's container runtime, which will answer in a moment.
func (n *Node) LaunchContainerd() {
	n.t.Helper()
	if err := n.configureContainerd(); err != nil {
		n.t.Fatalf("%s: %v", n.Name, err)
	}
	n.Containerd = n.Start("containerd", "/usr/bin/containerd", "--config", n.cluster.layout.ContainerdConfig())
}

// StartContainerd starts the node's container runtime and waits until it answers.
func (n *Node) StartContainerd() {
	n.t.Helper()
	n.LaunchContainerd()
	l := n.cluster.layout
	Await(n.t, n.Name+": containerd answers", 20*time.Second, func(ctx context.Context) error {
		r, err := n.Run(ctx, "ctr", "--address", l.ContainerdSocket(), "version")
		if err == nil && r.Code != 0 {
			err = errors.New(r.Stderr)
		}
		return err
	})
}

// configureContainerd writes the configuration that `everynode up` would. What this machine can do
// is found from outside: a thread has no /proc/self in a PID namespace that it is not in.
func (n *Node) configureContainerd() error {
	tools, err := containerd.FindTools()
	if err != nil {
		return err
	}
	real := layout.Layout{DataDir: n.Path(n.cluster.layout.DataDir)}
	if err := os.MkdirAll(real.DataDir, 0o700); err != nil {
		return err
	}
	config, err := containerd.Detect(real, tools)
	if err != nil {
		return err
	}
	config.Layout, config.Debug = n.cluster.layout, n.Verbose
	n.Do(func() { err = config.Write() })
	return err
}

// StartAgent starts the node's agent, with more flags if given; the token matters only for a node
// that has not joined yet.
func (n *Node) StartAgent(token string, flags ...string) {
	n.t.Helper()
	file := filepath.Join(dataDir, "join-token")
	if err := os.WriteFile(n.Path(file), []byte(token), 0o600); err != nil {
		n.t.Fatal(err)
	}
	l := n.cluster.layout
	argv := append([]string{
		n.cluster.programs.Everynode, "agent", "--server", ServerURL, "--token-file", file, "--node-name", n.Name, "--node-ip", n.Address,
		"--data-dir", dataDir, "--runtime-endpoint", l.RuntimeEndpoint(), "--cni-conf-dir", l.CNIConf(), "-v", "1",
	}, append(slices.Clone(n.flags), flags...)...)
	n.Agent = n.Start("agent", argv...)
}

// Inventory is all that the node's runtime has, what has ended included.
func (n *Node) Inventory(ctx context.Context) (sandboxes []*runtimeapi.PodSandbox, containers []*runtimeapi.Container, err error) {
	r, err := containerd.Connect(ctx, n.outside())
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = r.Close(ctx) }()
	if sandboxes, err = r.ListPodSandbox(ctx, nil); err != nil {
		return nil, nil, err
	}
	containers, err = r.ListContainers(ctx, nil)
	return sandboxes, containers, err
}

// ReadySandboxes are the UIDs of the pods that the node's runtime runs, sorted.
func (n *Node) ReadySandboxes(ctx context.Context) ([]string, error) {
	r, err := containerd.Connect(ctx, n.outside())
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close(ctx) }()
	list, err := r.ListPodSandbox(ctx, nil)
	if err != nil {
		return nil, err
	}
	uids := make([]string, 0, len(list))
	for _, s := range list {
		if s.State == runtimeapi.PodSandboxState_SANDBOX_READY {
			uids = append(uids, s.Metadata.GetUid())
		}
	}
	slices.Sort(uids)
	return uids, nil
}

// AwaitReady waits until all given nodes, or all of the cluster, are Ready.
func (c *Cluster) AwaitReady(nodes ...*Node) {
	c.t.Helper()
	if len(nodes) == 0 {
		nodes = c.Nodes
	}
	for _, n := range nodes {
		Await(c.t, n.Name+" is Ready", 60*time.Second, func(ctx context.Context) error {
			if n.Agent != nil {
				select {
				case <-n.Agent.Done():
					return Fatal(fmt.Errorf("the agent ended: %w", n.Agent.err))
				default:
				}
			}
			node, err := c.Client().CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			for _, condition := range node.Status.Conditions {
				if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
					return nil
				}
			}
			return fmt.Errorf("conditions: %v", node.Status.Conditions)
		})
	}
}

// Kubectl runs the stock kubectl as the administrator.
func (c *Cluster) Kubectl(args ...string) Result { return c.KubectlWith("", args...) }

// KubectlWith is Kubectl with text on standard input.
func (c *Cluster) KubectlWith(stdin string, args ...string) Result {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	r, err := c.Switch.RunWith(ctx, stdin, append([]string{c.programs.Kubectl, "--kubeconfig", c.Kubeconfig()}, args...)...)
	if err != nil {
		c.t.Fatalf("kubectl %s: %v", strings.Join(args, " "), err)
	}
	return r
}

// Everynode runs a command of everynode's as the administrator, with text on standard input.
func (c *Cluster) Everynode(stdin string, args ...string) Result {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	r, err := c.Switch.RunWith(ctx, stdin, append(append([]string{c.programs.Everynode}, args...), "--kubeconfig", c.Kubeconfig())...)
	if err != nil {
		c.t.Fatalf("everynode %s: %v", strings.Join(args, " "), err)
	}
	return r
}

// MustKubectl is Kubectl for commands that have to succeed; it returns what they print.
func (c *Cluster) MustKubectl(args ...string) string {
	c.t.Helper()
	r := c.Kubectl(args...)
	if r.Code != 0 {
		c.t.Fatalf("kubectl %s: exit code %d\n%s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// Apply applies manifests.
func (c *Cluster) Apply(manifest string) {
	c.t.Helper()
	if r := c.KubectlWith(manifest, "apply", "-f", "-"); r.Code != 0 {
		c.t.Fatalf("kubectl apply: exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
}
