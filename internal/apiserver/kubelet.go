package apiserver

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/server/egressselector"
	kubeletclient "k8s.io/kubernetes/pkg/kubelet/client"
)

const (
	// agentPort is where a node agent listens if its Node says nothing else.
	agentPort = 10250
	// kubeletClientName and kubeletClientGroup are who the server is to the agents.
	kubeletClientName  = "kube-apiserver-kubelet-client"
	kubeletClientGroup = "everynode:kubelet-admins"
)

// kubeletClient is how logs, exec, attach and port-forward reach an agent: both sides show a certificate of our CA.
func (a *assembly) kubeletClient() (kubeletclient.KubeletClientConfig, error) {
	cert, key, err := a.options.PKI.Client("kubelet-client", kubeletClientName, kubeletClientGroup)
	if err != nil {
		return kubeletclient.KubeletClientConfig{}, err
	}
	return kubeletclient.KubeletClientConfig{
		Port: agentPort,
		PreferredAddressTypes: []string{
			string(corev1.NodeInternalIP), string(corev1.NodeExternalIP), string(corev1.NodeHostName),
		},
		TLSClientConfig: kubeletclient.KubeletTLSConfig{CertFile: cert, KeyFile: key, CAFile: a.options.PKI.CACertFile()},
		HTTPTimeout:     5 * time.Second,
		Lookup: func(egressselector.NetworkContext) (utilnet.DialFunc, error) {
			return agentDialer{ownAddress}.dial, nil
		},
	}, nil
}

// agentDialer connects to agents.
type agentDialer struct {
	own func(net.IP) bool // whether an address is one of this machine's
}

// dial connects to an agent. The one of `everynode up` listens on loopback only, while its Node carries the machine's
// real address; so when an address of this machine refuses, loopback is tried. The certificate is checked against the
// Node's address either way.
func (a agentDialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}
	c, err := d.DialContext(ctx, network, address)
	if err == nil || !errors.Is(err, syscall.ECONNREFUSED) {
		return c, err
	}
	host, port, splitErr := net.SplitHostPort(address)
	if splitErr != nil || !a.own(net.ParseIP(host)) {
		return nil, err
	}
	if c, loopErr := d.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port)); loopErr == nil {
		return c, nil
	}
	return nil, err
}

// ownAddress reports whether an interface of this machine other than loopback has the address.
func ownAddress(ip net.IP) bool {
	if ip == nil || ip.IsLoopback() {
		return false
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.Equal(ip) {
			return true
		}
	}
	return false
}
