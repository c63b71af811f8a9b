package pods

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/everynode/everynode/internal/agent/images"
)

// maskedPaths and readonlyPaths hide the host's secrets in /proc and /sys from
// containers with the default procMount, as every runtime does.
var (
	maskedPaths = []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// namespaces are those that a pod shares with the host.
func namespaces(pod *corev1.Pod) *runtimeapi.NamespaceOption {
	o := &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_POD, Pid: runtimeapi.NamespaceMode_CONTAINER, Ipc: runtimeapi.NamespaceMode_POD}
	if pod.Spec.HostNetwork {
		o.Network = runtimeapi.NamespaceMode_NODE
	}
	if pod.Spec.HostIPC {
		o.Ipc = runtimeapi.NamespaceMode_NODE
	}
	switch share := pod.Spec.ShareProcessNamespace; {
	case pod.Spec.HostPID:
		o.Pid = runtimeapi.NamespaceMode_NODE
	case share != nil && *share:
		o.Pid = runtimeapi.NamespaceMode_POD
	}
	return o
}

// sandboxSecurity is the security context of the pod's own process. The seccomp profile is a file,
// or "" for the runtime's own.
func sandboxSecurity(pod *corev1.Pod, profile string) *runtimeapi.LinuxSandboxSecurityContext {
	seccomp := &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
	if class := pod.Spec.RuntimeClassName; profile != "" && (class == nil || *class == "") {
		seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: profile}
	}
	s := &runtimeapi.LinuxSandboxSecurityContext{
		NamespaceOptions: namespaces(pod),
		Privileged:       hasPrivileged(pod),
		Seccomp:          seccomp,
	}
	sc := pod.Spec.SecurityContext
	if sc == nil {
		return s
	}
	s.RunAsUser, s.RunAsGroup = int64Value(sc.RunAsUser), int64Value(sc.RunAsGroup)
	s.SupplementalGroups = groups(pod)
	s.SupplementalGroupsPolicy = groupsPolicy(sc)
	s.SelinuxOptions = selinux(sc.SELinuxOptions)
	return s
}

func hasPrivileged(pod *corev1.Pod) bool {
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if sc := list[i].SecurityContext; sc != nil && sc.Privileged != nil && *sc.Privileged {
				return true
			}
		}
	}
	return false
}

// containerSecurity merges the pod's and the container's security contexts, the
// container's having the last word.
func (m *Manager) containerSecurity(pod *corev1.Pod, c *corev1.Container, img images.Image) (*runtimeapi.LinuxContainerSecurityContext, error) {
	sc := effective(pod, c)
	if err := checkNonRoot(pod, c, sc, img); err != nil {
		return nil, err
	}
	s := &runtimeapi.LinuxContainerSecurityContext{
		NamespaceOptions:   namespaces(pod),
		Privileged:         isTrue(sc.Privileged),
		ReadonlyRootfs:     isTrue(sc.ReadOnlyRootFilesystem),
		NoNewPrivs:         sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation,
		RunAsUser:          int64Value(sc.RunAsUser),
		RunAsGroup:         int64Value(sc.RunAsGroup),
		SupplementalGroups: groups(pod),
		SelinuxOptions:     selinux(sc.SELinuxOptions),
	}
	if pod.Spec.SecurityContext != nil {
		s.SupplementalGroupsPolicy = groupsPolicy(pod.Spec.SecurityContext)
	}
	if s.RunAsUser == nil {
		switch {
		case img.UID != nil:
			s.RunAsUser = int64Value(img.UID)
		case img.Username != "":
			s.RunAsUsername = img.Username
		default:
			s.RunAsUser = &runtimeapi.Int64Value{}
		}
	}
	if caps := sc.Capabilities; caps != nil {
		s.Capabilities = &runtimeapi.Capability{AddCapabilities: capabilities(caps.Add), DropCapabilities: capabilities(caps.Drop)}
	}
	if sc.ProcMount == nil || *sc.ProcMount != corev1.UnmaskedProcMount {
		s.MaskedPaths, s.ReadonlyPaths = maskedPaths, readonlyPaths
	}
	var err error
	if s.Seccomp, err = m.seccomp(sc.SeccompProfile); err != nil {
		return nil, err
	}
	s.Apparmor, s.ApparmorProfile, err = apparmor(pod, c, sc.AppArmorProfile) //nolint:staticcheck // containerd 1.6 reads only the deprecated field
	return s, err
}

// effective is the container's security context with the pod's for what it leaves open.
func effective(pod *corev1.Pod, c *corev1.Container) corev1.SecurityContext {
	var sc corev1.SecurityContext
	if c.SecurityContext != nil {
		sc = *c.SecurityContext
	}
	p := pod.Spec.SecurityContext
	if p == nil {
		return sc
	}
	sc.RunAsUser = first(sc.RunAsUser, p.RunAsUser)
	sc.RunAsGroup = first(sc.RunAsGroup, p.RunAsGroup)
	sc.RunAsNonRoot = first(sc.RunAsNonRoot, p.RunAsNonRoot)
	sc.SELinuxOptions = first(sc.SELinuxOptions, p.SELinuxOptions)
	sc.SeccompProfile = first(sc.SeccompProfile, p.SeccompProfile)
	sc.AppArmorProfile = first(sc.AppArmorProfile, p.AppArmorProfile)
	return sc
}

func first[T any](a, b *T) *T {
	if a != nil {
		return a
	}
	return b
}

// checkNonRoot refuses to run as root what must not.
func checkNonRoot(pod *corev1.Pod, c *corev1.Container, sc corev1.SecurityContext, img images.Image) error {
	switch {
	case !isTrue(sc.RunAsNonRoot):
		return nil
	case sc.RunAsUser != nil && *sc.RunAsUser == 0:
		return fmt.Errorf("container's runAsUser breaks non-root policy (pod: %q, container: %s)", podName(pod), c.Name)
	case sc.RunAsUser != nil:
		return nil
	case img.UID == nil && img.Username != "":
		return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root (pod: %q, container: %s)", img.Username, podName(pod), c.Name)
	case img.UID == nil || *img.UID == 0:
		return fmt.Errorf("container has runAsNonRoot and image will run as root (pod: %q, container: %s)", podName(pod), c.Name)
	}
	return nil
}

func (m *Manager) seccomp(p *corev1.SeccompProfile) (*runtimeapi.SecurityProfile, error) {
	if p == nil {
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, nil
	}
	switch p.Type {
	case corev1.SeccompProfileTypeRuntimeDefault:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}, nil
	case corev1.SeccompProfileTypeLocalhost:
		if p.LocalhostProfile == nil || !filepath.IsLocal(*p.LocalhostProfile) {
			return nil, fmt.Errorf("seccompProfile of type Localhost needs a localhostProfile that is a path below %s", m.o.SeccompDir)
		}
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: filepath.Join(m.o.SeccompDir, *p.LocalhostProfile)}, nil
	}
	return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, nil
}

// hostAppArmor tells whether the kernel enforces AppArmor profiles.
func hostAppArmor() bool {
	on, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && bytes.HasPrefix(on, []byte("Y"))
}

// apparmor gives the profile in its field and in the older form that containerd
// 1.6 reads.
func apparmor(pod *corev1.Pod, c *corev1.Container, p *corev1.AppArmorProfile) (*runtimeapi.SecurityProfile, string, error) {
	if p == nil {
		return nil, pod.Annotations[corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix+c.Name], nil
	}
	switch p.Type {
	case corev1.AppArmorProfileTypeRuntimeDefault:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}, corev1.DeprecatedAppArmorBetaProfileRuntimeDefault, nil
	case corev1.AppArmorProfileTypeLocalhost:
		if p.LocalhostProfile == nil {
			return nil, "", errors.New("appArmorProfile of type Localhost needs a localhostProfile: the name of a profile loaded on the node")
		}
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: *p.LocalhostProfile},
			corev1.DeprecatedAppArmorBetaProfileNamePrefix + *p.LocalhostProfile, nil
	}
	return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, corev1.DeprecatedAppArmorBetaProfileNameUnconfined, nil
}

func groups(pod *corev1.Pod) []int64 {
	sc := pod.Spec.SecurityContext
	if sc == nil {
		return nil
	}
	var list []int64
	if sc.FSGroup != nil {
		list = append(list, *sc.FSGroup)
	}
	return append(list, sc.SupplementalGroups...)
}

func groupsPolicy(sc *corev1.PodSecurityContext) runtimeapi.SupplementalGroupsPolicy {
	if p := sc.SupplementalGroupsPolicy; p != nil {
		return runtimeapi.SupplementalGroupsPolicy(runtimeapi.SupplementalGroupsPolicy_value[string(*p)])
	}
	return runtimeapi.SupplementalGroupsPolicy_Merge
}

func selinux(o *corev1.SELinuxOptions) *runtimeapi.SELinuxOption {
	if o == nil {
		return nil
	}
	return &runtimeapi.SELinuxOption{User: o.User, Role: o.Role, Type: o.Type, Level: o.Level}
}

func capabilities(list []corev1.Capability) []string {
	out := make([]string, len(list))
	for i, c := range list {
		out[i] = string(c)
	}
	return out
}

func int64Value(v *int64) *runtimeapi.Int64Value {
	if v == nil {
		return nil
	}
	return &runtimeapi.Int64Value{Value: *v}
}

func isTrue(b *bool) bool { return b != nil && *b }
