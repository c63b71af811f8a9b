package pods

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const hostsPath = "/etc/hosts"

// hostname is the pod's host name and domain:
// https://kubernetes.io/docs/concepts/workloads/pods/pod-hostname/
func (m *Manager) hostname(pod *corev1.Pod) (name, domain string, err error) {
	if o := pod.Spec.HostnameOverride; o != nil {
		if bad := validation.IsDNS1123Subdomain(*o); len(bad) > 0 {
			return "", "", fmt.Errorf("pod HostnameOverride %q is not a valid DNS subdomain: %s", *o, strings.Join(bad, ";"))
		}
		return truncate(*o), "", nil
	}
	name = pod.Name
	if pod.Spec.Hostname != "" {
		name = pod.Spec.Hostname
		if bad := validation.IsDNS1123Label(name); len(bad) > 0 {
			return "", "", fmt.Errorf("pod Hostname %q is not a valid DNS label: %s", name, strings.Join(bad, ";"))
		}
	}
	if s := pod.Spec.Subdomain; s != "" {
		if bad := validation.IsDNS1123Label(s); len(bad) > 0 {
			return "", "", fmt.Errorf("pod Subdomain %q is not a valid DNS label: %s", s, strings.Join(bad, ";"))
		}
		domain = fmt.Sprintf("%s.%s.svc.%s", s, pod.Namespace, m.o.ClusterDomain)
	}
	return truncate(name), domain, nil
}

// truncate keeps to what the kernel takes as a host name.
func truncate(name string) string {
	const most = 63
	if len(name) > most {
		name = strings.TrimRight(name[:most], "-.")
	}
	return name
}

// kernelHostname is the name the sandbox gets.
func (m *Manager) kernelHostname(pod *corev1.Pod) (string, error) {
	name, domain, err := m.hostname(pod)
	if err != nil || pod.Spec.SetHostnameAsFQDN == nil || !*pod.Spec.SetHostnameAsFQDN || domain == "" {
		return name, err
	}
	fqdn := name + "." + domain
	if len(fqdn) > 64 {
		return "", fmt.Errorf("failed to construct FQDN from pod hostname and cluster domain, FQDN %s is too long (64 characters is the max, %d characters requested)", fqdn, len(fqdn))
	}
	return fqdn, nil
}

// hostsMount writes the pod's /etc/hosts and returns its mount, or nil if the
// container mounts one of its own or the pod has no address yet.
func (m *Manager) hostsMount(pod *corev1.Pod, c *corev1.Container, ips []string) (*runtimeapi.Mount, error) {
	for _, vm := range c.VolumeMounts {
		if vm.MountPath == hostsPath {
			return nil, nil
		}
	}
	if len(ips) == 0 {
		return nil, nil
	}
	content, err := m.hostsContent(pod, ips)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(m.podFiles(pod.UID), "etc-hosts")
	if err := writeFile(path, content, 0o644); err != nil {
		return nil, fmt.Errorf("write the pod's hosts file: %w", err)
	}
	return &runtimeapi.Mount{HostPath: path, ContainerPath: hostsPath}, nil
}

func (m *Manager) hostsContent(pod *corev1.Pod, ips []string) ([]byte, error) {
	var b bytes.Buffer
	if pod.Spec.HostNetwork {
		host, err := os.ReadFile(hostsPath)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		b.WriteString("# Kubernetes-managed hosts file (host network).\n")
		b.Write(host)
	} else {
		name, domain, err := m.hostname(pod)
		if err != nil {
			return nil, err
		}
		b.WriteString("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
			"fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n")
		for _, ip := range ips {
			if domain != "" {
				fmt.Fprintf(&b, "%s\t%s.%s\t%s\n", ip, name, domain, name)
			} else {
				fmt.Fprintf(&b, "%s\t%s\n", ip, name)
			}
		}
	}
	if len(pod.Spec.HostAliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
		for _, a := range pod.Spec.HostAliases {
			fmt.Fprintf(&b, "%s\t%s\n", a.IP, strings.Join(a.Hostnames, "\t"))
		}
	}
	return b.Bytes(), nil
}

// writeFile writes in place: the file may be mounted into running containers,
// which would keep an old one that was replaced.
func writeFile(path string, content []byte, mode os.FileMode) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	if err := os.WriteFile(path, content, mode); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}
