// Package server assembles the control plane of one process: store, PKI, API server, join token,
// and, while this server leads, the controllers and the scheduler.
//
// The command `everynode server` calls Run. The parts do not know each other; what one needs from
// another is handed over here, and nowhere else.
package server

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// The values of the flags that are not given.
const (
	DefaultListen                 = "127.0.0.1:6443"
	DefaultClusterCIDR            = "10.42.0.0/16"
	DefaultServiceCIDR            = "10.43.0.0/16"
	DefaultNodeCIDRMaskSize       = 24
	DefaultNodeMonitorGracePeriod = 40 * time.Second
)

// Options are what `everynode server` is told. All fields without a note are required.
type Options struct {
	DataDir string
	Listen  string // HOST:PORT
	// AlsoListen are further addresses, which need not exist yet. May be empty.
	AlsoListen []string
	// AdvertiseAddress is where nodes and pods reach this server. Empty: found from Listen.
	AdvertiseAddress string

	// EtcdEndpoints name an etcd cluster, as URLs; empty means one embedded in this process.
	EtcdEndpoints                         []string
	EtcdCAFile, EtcdCertFile, EtcdKeyFile string

	ClusterCIDR, ServiceCIDR string
	NodeCIDRMaskSize         int
	NodeMonitorGracePeriod   time.Duration
	AuditLogPath             string // no audit log if empty
}

// Validate reports every value that cannot work, by the name of its flag.
func (o *Options) Validate() error {
	_, err := o.settle()
	return err
}

// settings are the options in the form that the parts take.
type settings struct {
	listenHost               string
	listenPort               int
	advertise                net.IP // nil: for this machine only
	clusterCIDR, serviceCIDR *net.IPNet
}

func (o *Options) settle() (*settings, error) {
	s := &settings{}
	var errs []error
	note := func(err error) { errs = append(errs, err) }
	var err error
	if !filepath.IsAbs(o.DataDir) {
		note(fmt.Errorf("--data-dir %q: must be an absolute path", o.DataDir))
	}
	if s.listenHost, s.listenPort, err = splitListen(o.Listen); err != nil {
		note(err)
	}
	if s.clusterCIDR, err = parseRange("--cluster-cidr", o.ClusterCIDR); err != nil {
		note(err)
	}
	if s.serviceCIDR, err = parseRange("--service-cidr", o.ServiceCIDR); err != nil {
		note(err)
	}
	if s.clusterCIDR != nil {
		if ones, _ := s.clusterCIDR.Mask.Size(); o.NodeCIDRMaskSize < ones || o.NodeCIDRMaskSize > 30 {
			note(fmt.Errorf("--node-cidr-mask-size %d: must be between that of --cluster-cidr (%d) and 30", o.NodeCIDRMaskSize, ones))
		}
	}
	if o.NodeMonitorGracePeriod < time.Second {
		note(fmt.Errorf("--node-monitor-grace-period %s: must be a second at least; nodes report every ten seconds", o.NodeMonitorGracePeriod))
	}
	if s.advertise, err = o.advertise(s.listenHost); err != nil {
		note(err)
	}
	return s, errors.Join(errs...)
}

func splitListen(listen string) (host string, port int, err error) {
	host, portText, err := net.SplitHostPort(listen)
	if err != nil {
		return "", 0, fmt.Errorf("--listen %q: must be ADDRESS:PORT, like %s", listen, DefaultListen)
	}
	port, err = strconv.Atoi(portText)
	if err != nil || port < 1 || port > 65535 {
		return "", 0, fmt.Errorf("--listen %q: the port must be between 1 and 65535", listen)
	}
	if host == "" {
		host = "0.0.0.0"
	}
	if net.ParseIP(host) == nil {
		return "", 0, fmt.Errorf("--listen %q: must name an address of this machine, not a host name", listen)
	}
	return host, port, nil
}

func parseRange(flag, cidr string) (*net.IPNet, error) {
	ip, n, err := net.ParseCIDR(cidr)
	if err != nil || ip.To4() == nil || !ip.Equal(n.IP) {
		return nil, fmt.Errorf("%s %q: must be an IPv4 range written by its first address, like %s", flag, cidr, DefaultClusterCIDR)
	}
	return n, nil
}

// advertise finds the address at which others reach a server that listens on host.
func (o *Options) advertise(host string) (net.IP, error) {
	if o.AdvertiseAddress != "" {
		ip := net.ParseIP(o.AdvertiseAddress)
		if ip == nil || ip.IsUnspecified() || ip.IsLoopback() {
			return nil, fmt.Errorf("--advertise-address %q: must be an address of this machine that nodes reach, like 10.0.0.1", o.AdvertiseAddress)
		}
		return ip, nil
	}
	ip := net.ParseIP(host)
	if ip == nil || ip.IsLoopback() {
		return nil, nil // a wrong --listen is reported already
	}
	if !ip.IsUnspecified() {
		return ip, nil
	}
	found, err := utilnet.ChooseHostInterface()
	if err != nil {
		return nil, fmt.Errorf("--listen %s: cannot tell at which address others reach this machine (%w); say it with --advertise-address", o.Listen, err)
	}
	return found, nil
}

// URL is where clients on this machine reach a server with these options.
func (o *Options) URL() (string, error) {
	s, err := o.settle()
	if err != nil {
		return "", err
	}
	return s.url(), nil
}

func (s *settings) url() string {
	host := s.listenHost
	if net.ParseIP(host).IsUnspecified() {
		host = "127.0.0.1"
	}
	return "https://" + net.JoinHostPort(host, strconv.Itoa(s.listenPort))
}
