package network

import (
	"bufio"
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Limits of resolv.conf, as validation of Pods and the kubelet have them.
const (
	maxNameservers = 3
	maxSearches    = 32
	maxSearchChars = 2048
	maxDomainChars = 253
)

// stubResolver is where systemd-resolved keeps the servers behind its stub at 127.0.0.53, which a pod
// with its own network cannot reach.
const stubResolver = "/run/systemd/resolve/resolv.conf"

// DNS makes the resolver configuration of pods.
// https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/
type DNS struct {
	// HostFile is the machine's resolv.conf; /etc/resolv.conf if empty.
	HostFile string
	// StubFile is read instead if HostFile names loopback addresses only.
	StubFile string
	// ClusterServers are the addresses of the cluster's DNS. While there is none, pods that ask for
	// it get the machine's resolver.
	ClusterServers []string
	// ClusterDomain is the domain of Services, such as cluster.local.
	ClusterDomain string
}

// For returns what the pod's resolv.conf should say.
func (d DNS) For(pod *corev1.Pod) (*runtimeapi.DNSConfig, error) {
	conf := &runtimeapi.DNSConfig{}
	switch cluster := d.wantsCluster(pod); {
	case pod.Spec.DNSPolicy == corev1.DNSNone:
	case cluster && len(d.ClusterServers) > 0:
		host, err := d.host(pod)
		if err != nil {
			return nil, err
		}
		services := "svc." + d.ClusterDomain
		conf.Servers = slices.Clone(d.ClusterServers)
		conf.Searches = append([]string{pod.Namespace + "." + services, services, d.ClusterDomain}, host.Searches...)
		conf.Options = []string{"ndots:5"}
	default:
		host, err := d.host(pod)
		if err != nil {
			return nil, err
		}
		conf = host
	}
	if own := pod.Spec.DNSConfig; own != nil {
		conf.Servers = append(conf.Servers, own.Nameservers...)
		conf.Searches = append(conf.Searches, own.Searches...)
		for _, option := range own.Options {
			text := option.Name
			if option.Value != nil && *option.Value != "" {
				text += ":" + *option.Value
			}
			conf.Options = setOption(conf.Options, text)
		}
	}
	conf.Servers = limit(unique(conf.Servers), maxNameservers)
	conf.Searches = limitSearches(unique(conf.Searches))
	return conf, nil
}

// wantsCluster: on the host's network ClusterFirst means the host's resolver; only
// ClusterFirstWithHostNet asks for the cluster's there.
func (d DNS) wantsCluster(pod *corev1.Pod) bool {
	switch pod.Spec.DNSPolicy {
	case corev1.DNSClusterFirstWithHostNet:
		return true
	case corev1.DNSClusterFirst, "":
		return !pod.Spec.HostNetwork
	}
	return false
}

// host is the machine's own configuration, in a form that works for the pod.
func (d DNS) host(pod *corev1.Pod) (*runtimeapi.DNSConfig, error) {
	file := d.HostFile
	if file == "" {
		file = "/etc/resolv.conf"
	}
	conf, err := readResolvConf(file)
	if err != nil {
		return nil, err
	}
	if pod.Spec.HostNetwork || !onlyLoopback(conf.Servers) {
		return conf, nil
	}
	stub := d.StubFile
	if stub == "" {
		stub = stubResolver
	}
	// A resolver on loopback cannot be reached from a pod's own network; if nothing better is known,
	// the pod gets what there is.
	if behind, err := readResolvConf(stub); err == nil && len(behind.Servers) > 0 {
		return behind, nil
	}
	return conf, nil
}

func onlyLoopback(servers []string) bool {
	return len(servers) > 0 && !slices.ContainsFunc(servers, func(s string) bool {
		addr, err := netip.ParseAddr(s)
		return err != nil || !addr.IsLoopback()
	})
}

func readResolvConf(path string) (*runtimeapi.DNSConfig, error) {
	data, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		// Resolvers take that for "the name server on this machine".
		return &runtimeapi.DNSConfig{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("resolver configuration of this machine: %w", err)
	}
	return parseResolvConf(data), nil
}

// parseResolvConf reads resolv.conf(5): name servers add up, the last search or domain line counts,
// of options the last of each name.
func parseResolvConf(data []byte) *runtimeapi.DNSConfig {
	conf := &runtimeapi.DNSConfig{}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || strings.ContainsAny(fields[0][:1], "#;") {
			continue
		}
		switch rest := fields[1:]; fields[0] {
		case "nameserver":
			conf.Servers = append(conf.Servers, rest[0])
		case "search", "domain":
			conf.Searches = nil
			for _, domain := range rest {
				// "." alone stands for no search; a dot behind a domain says nothing.
				if domain = strings.TrimSuffix(domain, "."); domain != "" {
					conf.Searches = append(conf.Searches, domain)
				}
			}
		case "options":
			for _, option := range rest {
				conf.Options = setOption(conf.Options, option)
			}
		}
	}
	return conf
}

// setOption replaces the option of the same name, or appends it.
func setOption(options []string, option string) []string {
	name, _, _ := strings.Cut(option, ":")
	for i := range options {
		if have, _, _ := strings.Cut(options[i], ":"); have == name {
			options[i] = option
			return options
		}
	}
	return append(options, option)
}

func unique(list []string) []string {
	var out []string
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

func limit(list []string, n int) []string { return list[:min(len(list), n)] }

// limitSearches leaves out domains no resolver takes, and what does not fit into the line.
func limitSearches(list []string) []string {
	list = slices.DeleteFunc(list, func(s string) bool { return len(s) > maxDomainChars })
	list = limit(list, maxSearches)
	for len(strings.Join(list, " ")) > maxSearchChars {
		list = list[:len(list)-1]
	}
	return list
}
