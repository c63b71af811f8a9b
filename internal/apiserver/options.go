package apiserver

import (
	"errors"
	"fmt"
	"net"
	"strconv"

	netutils "k8s.io/utils/net"

	"github.com/everynode/everynode/internal/apiserver/pki"
	"github.com/everynode/everynode/internal/store"
)

// Options says where to listen, what to serve from and which address ranges to hand out. The zero value of a field
// without a note is not valid.
type Options struct {
	// DataDir holds what the server keeps besides its store: nothing but the PKI today.
	DataDir string
	// Listen is the address to serve on, host:port. Port 0 picks a free one; see Server.Address.
	Listen string
	// ExtraListen are further addresses to serve on, host:port. They need not be assigned to an interface yet, so
	// that the server can listen on a bridge which the node agent makes later. Port 0 is Listen's port.
	ExtraListen []string
	// AdvertiseIP is the address at which nodes and pods reach this server. Nil: it is for this machine only, and no
	// endpoint is published in Service default/kubernetes.
	AdvertiseIP net.IP
	// Store is the open store. The server does not close it.
	Store *store.Backend
	// PKI holds the certificate authority and signs the serving and client certificates.
	PKI *pki.Bundle
	// ServiceCIDR is the range of ClusterIPs. Its first address is Service default/kubernetes.
	ServiceCIDR *net.IPNet
	// ClusterCIDR is the range of pod addresses.
	ClusterCIDR *net.IPNet
	// NodeRanges promises a node that is created the range of its pods' addresses. Nil: nodes get theirs later.
	NodeRanges NodeRanges
	// AuditLogPath is the file for audit events, "-" for standard output. Empty: no audit log.
	AuditLogPath string
	// AuditPolicyFile is an audit policy in Kubernetes' format. Empty: one line of metadata for each write.
	AuditPolicyFile string
}

// Validate reports the first thing wrong with the options, and what to do about it.
func (o *Options) Validate() error {
	if o.Store == nil || o.PKI == nil {
		return errors.New("apiserver: a store and a PKI are needed")
	}
	for _, a := range append([]string{o.Listen}, o.ExtraListen...) {
		host, port, err := net.SplitHostPort(a)
		if err != nil {
			return fmt.Errorf("apiserver: listen address %q is not host:port: %w", a, err)
		}
		if host != "" && net.ParseIP(host) == nil {
			return fmt.Errorf("apiserver: listen address %q must name an IP address, not a host name", a)
		}
		if p, err := strconv.Atoi(port); err != nil || p < 0 || p > 65535 {
			return fmt.Errorf("apiserver: listen address %q has no valid port", a)
		}
	}
	if o.AdvertiseIP != nil && (o.AdvertiseIP.IsLoopback() || o.AdvertiseIP.IsUnspecified()) {
		return fmt.Errorf("apiserver: %s cannot be advertised: nodes and pods could not reach it; name an address of this machine with --node-ip", o.AdvertiseIP)
	}
	if err := validRange("service", o.ServiceCIDR, 12, 28); err != nil {
		return err
	}
	if err := validRange("cluster", o.ClusterCIDR, 8, 28); err != nil {
		return err
	}
	if o.ServiceCIDR.Contains(o.ClusterCIDR.IP) || o.ClusterCIDR.Contains(o.ServiceCIDR.IP) {
		return fmt.Errorf("apiserver: the service range %s and the pod range %s overlap: choose others with --service-cidr or --cluster-cidr", o.ServiceCIDR, o.ClusterCIDR)
	}
	if o.AuditPolicyFile != "" && o.AuditLogPath == "" {
		return errors.New("apiserver: an audit policy without --audit-log has no effect")
	}
	return nil
}

func validRange(name string, n *net.IPNet, shortest, longest int) error {
	if n == nil {
		return fmt.Errorf("apiserver: the %s range is missing", name)
	}
	ones, bits := n.Mask.Size()
	if bits != 32 {
		return fmt.Errorf("apiserver: the %s range %s is not IPv4", name, n)
	}
	if ones < shortest || ones > longest {
		return fmt.Errorf("apiserver: the %s range %s must be between a /%d and a /%d", name, n, shortest, longest)
	}
	return nil
}

// serviceIP is the ClusterIP of Service default/kubernetes.
func (o *Options) serviceIP() net.IP {
	ip, _ := netutils.GetIndexedIP(o.ServiceCIDR, 1) // Validate saw to the range
	return ip
}

// bridgeIP is the address of the pod bridge on the machine that `everynode up` runs on.
func (o *Options) bridgeIP() net.IP {
	ip, _ := netutils.GetIndexedIP(o.ClusterCIDR, 1)
	return ip
}
