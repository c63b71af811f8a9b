package podlife

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/node/util/sysctl"
)

// safeSysctls touch only the pod that sets them:
// https://kubernetes.io/docs/tasks/administer-cluster/sysctl-cluster/#safe-and-unsafe-sysctls
var safeSysctls = []string{
	"kernel.shm_rmid_forced",
	"net.ipv4.ip_local_port_range",
	"net.ipv4.ip_local_reserved_ports",
	"net.ipv4.ip_unprivileged_port_start",
	"net.ipv4.ping_group_range",
	"net.ipv4.tcp_fin_timeout",
	"net.ipv4.tcp_keepalive_intvl",
	"net.ipv4.tcp_keepalive_probes",
	"net.ipv4.tcp_keepalive_time",
	"net.ipv4.tcp_rmem",
	"net.ipv4.tcp_syncookies",
	"net.ipv4.tcp_wmem",
}

// forbiddenSysctl is the first of the pod's sysctls that would reach beyond it. The
// node may allow unsafe ones, by name or as net.core.*.
func forbiddenSysctl(pod *corev1.Pod, unsafe []string) *Verdict {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	for _, s := range pod.Spec.SecurityContext.Sysctls {
		name := sysctl.NormalizeName(s.Name)
		if !slices.Contains(safeSysctls, name) && !slices.ContainsFunc(unsafe, func(pattern string) bool { return matchesSysctl(pattern, name) }) {
			return &Verdict{"SysctlForbidden", fmt.Sprintf("forbidden sysctl: %q not allowlisted", name)}
		}
		switch ns, _, _ := sysctl.GetNamespace(name); {
		case ns == sysctl.NetNamespace && pod.Spec.HostNetwork:
			return &Verdict{"SysctlForbidden", fmt.Sprintf("forbidden sysctl: %q not allowed with host net enabled", name)}
		case ns == sysctl.IPCNamespace && pod.Spec.HostIPC:
			return &Verdict{"SysctlForbidden", fmt.Sprintf("forbidden sysctl: %q not allowed with host ipc enabled", name)}
		}
	}
	return nil
}

func matchesSysctl(pattern, name string) bool {
	if prefix, ok := strings.CutSuffix(sysctl.NormalizeName(pattern), "*"); ok {
		return strings.HasPrefix(name, prefix)
	}
	return sysctl.NormalizeName(pattern) == name
}

// CheckSysctl says why a node cannot allow a sysctl, or a pattern of them.
func CheckSysctl(pattern string) error {
	name := sysctl.NormalizeName(pattern)
	if ns, _, _ := sysctl.GetNamespace(strings.TrimSuffix(name, "*")); ns != sysctl.NetNamespace && ns != sysctl.IPCNamespace {
		return errors.New("it would change the whole node; kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.* and net.* are pods' own")
	}
	return nil
}
