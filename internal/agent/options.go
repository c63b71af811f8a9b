package agent

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/everynode/everynode/internal/agent/config"
	"github.com/everynode/everynode/internal/agent/node"
)

// The values that an empty option stands for.
const (
	DefaultDataDir         = "/var/lib/everynode"
	DefaultRuntimeEndpoint = "unix:///run/containerd/containerd.sock"
	DefaultCNIConfDir      = "/etc/cni/net.d"
	DefaultClusterCIDR     = "10.42.0.0/16"
	DefaultAPIServiceIP    = "10.43.0.1"
	DefaultListenPort      = 10250
)

// DefaultPodManifestPath is where static pods are looked for unless another folder is named.
const DefaultPodManifestPath = "/etc/kubernetes/manifests"

// Options are what `everynode agent` is told. Empty fields take the defaults above, or what the
// machine says (hostname, address of the default route).
type Options struct {
	// Server is the API server's address, https://HOST:PORT.
	Server string
	// TokenFile holds the join token; needed only until this node has its certificate.
	TokenFile string
	// NodeName is the Node's name; the machine's host name in lower case by default.
	NodeName string
	// DataDir keeps everything the agent writes: identity, volumes, images, CNI leases.
	DataDir string
	// RuntimeEndpoint is the CRI socket, unix:///PATH.
	RuntimeEndpoint string
	// NodeIP is the address other nodes reach this one at.
	NodeIP string
	// CNIConfDir is the folder that the container runtime reads network configurations from.
	CNIConfDir string
	// PodManifestPath is the folder of static pods; none if empty. It need not exist.
	PodManifestPath string
	// OfflinePods has the agent keep a record of DaemonSets' pods, with the ConfigMaps and Secrets
	// they use, and run them from it as long as no server answers after a start.
	OfflinePods bool
	// NodeLabels are set on the Node in addition to host name, architecture and system.
	NodeLabels map[string]string
	// AllowedUnsafeSysctls are sysctls that pods may set beside the safe ones.
	AllowedUnsafeSysctls []string
	// ListenLoopbackOnly keeps the node's own API (logs, exec, …) to 127.0.0.1.
	ListenLoopbackOnly bool
	// ListenPort is the port of that API.
	ListenPort int
	// ClusterCIDR is the range of all pods, used until the server publishes the real one.
	ClusterCIDR string
	// APIServiceIP is the ClusterIP of the Service default/kubernetes, used until it can be read.
	APIServiceIP string
	// Upkeep is how the node looks after itself: logs, images, eviction, reservations, shutdown.
	Upkeep config.Upkeep
}

// setDefaults fills in what the caller left empty. A host name that cannot be read stays empty and
// is Validate's to refuse.
func (o *Options) setDefaults() {
	set := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	set(&o.DataDir, DefaultDataDir)
	set(&o.RuntimeEndpoint, DefaultRuntimeEndpoint)
	set(&o.CNIConfDir, DefaultCNIConfDir)
	set(&o.ClusterCIDR, DefaultClusterCIDR)
	set(&o.APIServiceIP, DefaultAPIServiceIP)
	if o.ListenPort == 0 {
		o.ListenPort = DefaultListenPort
	}
	if o.NodeName == "" {
		host, _ := os.Hostname()
		o.NodeName = strings.ToLower(host)
	}
	if !strings.Contains(o.RuntimeEndpoint, "://") {
		o.RuntimeEndpoint = "unix://" + o.RuntimeEndpoint
	}
}

// Configure takes over what a configuration file says, except where a flag of the same meaning was
// given. Flags are named without dashes.
func (o *Options) Configure(c *config.Config, given func(flag string) bool) {
	if c.StaticPodPath != nil && !given("pod-manifest-path") {
		o.PodManifestPath = *c.StaticPodPath
	}
	if c.OfflinePods != nil && !given("offline-pods") {
		o.OfflinePods = *c.OfflinePods
	}
	o.AllowedUnsafeSysctls = c.AllowedUnsafeSysctls
	flags := o.Upkeep
	o.Upkeep = c.Upkeep
	if given("system-reserved") {
		o.Upkeep.SystemReserved = flags.SystemReserved
	}
	if given("kube-reserved") {
		o.Upkeep.KubeReserved = flags.KubeReserved
	}
}

// Validate says of every option that cannot work its flag, its value and what would be right. It
// looks at values only; what the machine lacks is found by Run. Empty fields are valid: they stand
// for the defaults.
func (o Options) Validate() error {
	o.setDefaults()
	return errors.Join(
		validateServer(o.Server),
		validateNodeName(o.NodeName),
		validatePath("--data-dir", o.DataDir),
		validatePath("--cni-conf-dir", o.CNIConfDir),
		validateOptionalPath("--pod-manifest-path", o.PodManifestPath),
		validateEndpoint(o.RuntimeEndpoint),
		validateNodeIP(o.NodeIP),
		validateCIDR("--cluster-cidr", o.ClusterCIDR),
		validateAPIServiceIP(o.APIServiceIP),
		validatePort(o.ListenPort),
		node.ValidateLabels(o.NodeLabels),
		validateUpkeep(o.Upkeep),
	)
}

func validateUpkeep(u config.Upkeep) error {
	if _, errs := u.Settings(); len(errs) > 0 {
		return errs.ToAggregate()
	}
	return nil
}

func validateServer(server string) error {
	if server == "" {
		return errors.New("--server is required: the API server's address, like https://10.0.0.1:6443")
	}
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" {
		return fmt.Errorf("--server %q: must be an https address and nothing behind the port, like https://10.0.0.1:6443", server)
	}
	return nil
}

func validateNodeName(name string) error {
	if msgs := validation.IsDNS1123Subdomain(name); len(msgs) > 0 {
		return fmt.Errorf("--node-name %q: %s; give another name, or change the machine's host name", name, strings.Join(msgs, "; "))
	}
	return nil
}

func validatePath(flag, path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%s %q: must be an absolute path", flag, path)
	}
	return nil
}

func validateOptionalPath(flag, path string) error {
	if path == "" {
		return nil
	}
	return validatePath(flag, path)
}

func validateEndpoint(endpoint string) error {
	path, ok := strings.CutPrefix(endpoint, "unix://")
	if !ok || !filepath.IsAbs(path) {
		return fmt.Errorf("--runtime-endpoint %q: must be the runtime's socket, like %s", endpoint, DefaultRuntimeEndpoint)
	}
	return nil
}

func validateNodeIP(ip string) error {
	if ip == "" {
		return nil
	}
	addr, err := netip.ParseAddr(ip)
	if err != nil || addr.IsUnspecified() || addr.IsMulticast() || addr.IsLinkLocalUnicast() || addr.Zone() != "" {
		return fmt.Errorf("--node-ip %q: must be an address of this machine that other nodes reach, like 10.0.0.2", ip)
	}
	return nil
}

func validateCIDR(flag, cidr string) error {
	ip, n, err := net.ParseCIDR(cidr)
	if err != nil || ip.To4() == nil || !ip.Equal(n.IP) {
		return fmt.Errorf("%s %q: must be an IPv4 range written by its first address, like %s", flag, cidr, DefaultClusterCIDR)
	}
	return nil
}

func validateAPIServiceIP(ip string) error {
	addr, err := netip.ParseAddr(ip)
	if err != nil || !addr.Is4() || !addr.IsGlobalUnicast() {
		return fmt.Errorf("API service address %q: must be an IPv4 address, like %s", ip, DefaultAPIServiceIP)
	}
	return nil
}

func validatePort(port int) error {
	if port < 1 || port > 65535 {
		return fmt.Errorf("--listen-port %d: must be between 1 and 65535", port)
	}
	return nil
}
