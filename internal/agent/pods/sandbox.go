package pods

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/decide/podlife"
)

// podFiles is where the agent's own files of a pod lie.
func (m *Manager) podFiles(uid types.UID) string { return filepath.Join(m.o.FilesDir, string(uid)) }

// runSandbox makes the pod's cgroup and log folder and runs its sandbox.
func (m *Manager) runSandbox(ctx context.Context, pod *corev1.Pod, attempt uint32, known ids) (podlife.Sandbox, error) {
	if u := pod.Spec.HostUsers; u != nil && !*u { // never run it with the host's users instead
		return podlife.Sandbox{}, errors.New("the pod wants a user namespace of its own (hostUsers: false), which this agent does not support: leave hostUsers out")
	}
	cfg, err := m.sandboxConfig(pod, attempt)
	if err != nil {
		return podlife.Sandbox{}, err
	}
	handler := ""
	if class := pod.Spec.RuntimeClassName; class != nil && *class != "" {
		if handler, err = m.o.RuntimeHandler(*class); err != nil {
			return podlife.Sandbox{}, fmt.Errorf("runtimeClassName %q: %w: make that RuntimeClass, or name one that there is", *class, err)
		}
	}
	if _, err := m.cgroups.Ensure(pod); err != nil {
		return podlife.Sandbox{}, err
	}
	// The agent's own folder of the pod comes first and goes last: by it, sweepFiles finds what
	// an agent that was killed has left of the pod elsewhere.
	if err := os.MkdirAll(m.podFiles(pod.UID), 0o750); err != nil {
		return podlife.Sandbox{}, fmt.Errorf("make the pod's folder: %w", err)
	}
	if err := os.MkdirAll(cfg.LogDirectory, 0o755); err != nil {
		return podlife.Sandbox{}, fmt.Errorf("make the pod's log folder: %w", err)
	}
	release, err := m.starts.slot(ctx, begins)
	if err != nil {
		return podlife.Sandbox{}, err
	}
	defer release()
	id, err := m.o.Runtime.RunPodSandbox(ctx, cfg, handler)
	if err != nil {
		return podlife.Sandbox{}, err
	}
	if err := m.killStrays(ctx, pod, known.with(id)); err != nil {
		return podlife.Sandbox{}, err
	}
	s := podlife.Sandbox{ID: id, Attempt: attempt, Ready: true, Created: time.Now()}
	if !pod.Spec.HostNetwork {
		s.IPs, err = m.sandboxIPs(ctx, id)
	}
	return s, err
}

// killStrays ends what the runtime has forgotten of a pod, before anything is
// started that would run beside it. The caller has just created a sandbox or container: as
// the runtime reserves its name, no earlier creation can still be under way. What
// is not among the known is looked up once more before it is killed.
func (m *Manager) killStrays(ctx context.Context, pod *corev1.Pod, known ids) error {
	if len(m.cgroups.Strays(pod, known.has)) == 0 {
		return nil
	}
	sandboxes, err := m.o.Runtime.ListPodSandbox(ctx, &runtimeapi.PodSandboxFilter{LabelSelector: byUID(pod.UID)})
	if err != nil {
		return err
	}
	containers, err := m.o.Runtime.ListContainers(ctx, &runtimeapi.ContainerFilter{LabelSelector: byUID(pod.UID)})
	if err != nil {
		return err
	}
	for _, s := range sandboxes {
		known = known.with(s.Id)
	}
	for _, c := range containers {
		known = known.with(c.Id)
	}
	for _, id := range m.cgroups.Strays(pod, known.has) {
		klog.InfoS("Killing processes that the runtime has forgotten", "pod", klog.KObj(pod), "id", id)
		if err := m.cgroups.Kill(pod, id); err != nil {
			return err
		}
	}
	return nil
}

// ids are sandboxes and containers that the runtime is known to have.
type ids []string

func (l ids) has(id string) bool      { return slices.Contains(l, id) }
func (l ids) with(more ...string) ids { return append(slices.Clip(l), more...) }

// knownIDs are all sandboxes and containers in the facts.
func (w *worker) knownIDs() ids {
	var l ids
	for _, s := range w.facts.Sandboxes {
		l = append(l, s.ID)
	}
	for _, c := range w.facts.Containers {
		l = append(l, c.ID)
	}
	return l
}

// sandboxIPs are the addresses that the pod network gave to a sandbox.
func (m *Manager) sandboxIPs(ctx context.Context, id string) ([]string, error) {
	r, err := m.o.Runtime.PodSandboxStatus(ctx, id, false)
	if err != nil {
		return nil, err
	}
	n := r.GetStatus().GetNetwork()
	var ips []string
	if n.GetIp() != "" {
		ips = append(ips, n.Ip)
	}
	for _, more := range n.GetAdditionalIps() {
		ips = append(ips, more.Ip)
	}
	return ips, nil
}

// sandboxConfig is the same for each call with the same pod and attempt:
// containers are created with it too.
func (m *Manager) sandboxConfig(pod *corev1.Pod, attempt uint32) (*runtimeapi.PodSandboxConfig, error) {
	dns, err := m.o.DNS(pod)
	if err != nil {
		return nil, fmt.Errorf("resolver configuration of the pod: %w", err)
	}
	cfg := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: pod.Name, Namespace: pod.Namespace, Uid: string(pod.UID), Attempt: attempt},
		LogDirectory: m.podLogDir(pod.Namespace, pod.Name, pod.UID),
		DnsConfig:    dns,
		PortMappings: portMappings(pod),
		Labels:       m.sandboxLabels(pod),
		Annotations:  pod.Annotations,
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent:    m.cgroups.Path(pod),
			SecurityContext: sandboxSecurity(pod, m.o.SandboxProfile),
			Sysctls:         sysctls(pod),
		},
	}
	if !pod.Spec.HostNetwork { // a host-network pod has no host name of its own
		if cfg.Hostname, err = m.kernelHostname(pod); err != nil {
			return nil, err
		}
	}
	return cfg, nil
}

func sysctls(pod *corev1.Pod) map[string]string {
	if pod.Spec.SecurityContext == nil || len(pod.Spec.SecurityContext.Sysctls) == 0 {
		return nil
	}
	m := map[string]string{}
	for _, s := range pod.Spec.SecurityContext.Sysctls {
		m[s.Name] = s.Value
	}
	return m
}

// portMappings are the host ports that the pod network forwards.
func portMappings(pod *corev1.Pod) []*runtimeapi.PortMapping {
	if pod.Spec.HostNetwork {
		return nil
	}
	var list []*runtimeapi.PortMapping
	add := func(containers []corev1.Container) {
		for _, c := range containers {
			for _, p := range c.Ports {
				if p.HostPort == 0 {
					continue
				}
				list = append(list, &runtimeapi.PortMapping{
					Protocol: protocol(p.Protocol), ContainerPort: p.ContainerPort, HostPort: p.HostPort, HostIp: p.HostIP,
				})
			}
		}
	}
	add(pod.Spec.InitContainers)
	add(pod.Spec.Containers)
	return list
}

func protocol(p corev1.Protocol) runtimeapi.Protocol {
	switch p {
	case corev1.ProtocolUDP:
		return runtimeapi.Protocol_UDP
	case corev1.ProtocolSCTP:
		return runtimeapi.Protocol_SCTP
	}
	return runtimeapi.Protocol_TCP
}
