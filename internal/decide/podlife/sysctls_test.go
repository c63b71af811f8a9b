package podlife

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestSysctls(t *testing.T) {
	for _, c := range []struct {
		name             string
		hostNet, hostIPC bool
		want             string
	}{
		{name: "kernel.shm_rmid_forced"},
		{name: "net/ipv4/tcp_syncookies"},
		{name: "kernel.msgmax", want: `forbidden sysctl: "kernel.msgmax" not allowlisted`},
		{name: "net.core.somaxconn"},
		{name: "kernel.shmall"},
		{name: "net.core.somaxconn", hostNet: true, want: `forbidden sysctl: "net.core.somaxconn" not allowed with host net enabled`},
		{name: "kernel.shm_rmid_forced", hostIPC: true, want: `forbidden sysctl: "kernel.shm_rmid_forced" not allowed with host ipc enabled`},
		{name: "vm.swappiness", want: `forbidden sysctl: "vm.swappiness" not allowlisted`},
	} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{HostNetwork: c.hostNet, HostIPC: c.hostIPC, SecurityContext: &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: c.name}}}}}
		got := ""
		if v := Admit(pod, nil, Host{UnsafeSysctls: []string{"net.core.*", "kernel/shmall"}}).Rejected; v != nil {
			got = v.Message
			if v.Reason != "SysctlForbidden" {
				t.Errorf("%s: reason %s", c.name, v.Reason)
			}
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	for pattern, ok := range map[string]bool{"net.core.somaxconn": true, "net.core.*": true, "kernel.shm*": true, "kernel.msgmax": true, "fs.mqueue.*": true, "vm.*": false, "*": false} {
		if err := CheckSysctl(pattern); (err == nil) != ok {
			t.Errorf("%s may be allowed: %v", pattern, err)
		}
	}
}

func TestAppArmor(t *testing.T) {
	profile := func(kind corev1.AppArmorProfileType) *corev1.AppArmorProfile {
		return &corev1.AppArmorProfile{Type: kind}
	}
	byPod := &corev1.Pod{Spec: corev1.PodSpec{SecurityContext: &corev1.PodSecurityContext{AppArmorProfile: profile(corev1.AppArmorProfileTypeRuntimeDefault)}}}
	byContainer := podWith(corev1.Container{Name: "c", SecurityContext: &corev1.SecurityContext{AppArmorProfile: profile(corev1.AppArmorProfileTypeLocalhost)}})
	byAnnotation := podWith()
	byAnnotation.Annotations = map[string]string{corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix + "c": "localhost/x"}
	free := podWith(corev1.Container{Name: "c", SecurityContext: &corev1.SecurityContext{AppArmorProfile: profile(corev1.AppArmorProfileTypeUnconfined)}})
	for pod, wants := range map[*corev1.Pod]bool{byPod: true, byContainer: true, byAnnotation: true, free: false} {
		if v := Admit(pod, nil, Host{}).Rejected; (v != nil) != wants || v != nil && v.Reason != "AppArmor" {
			t.Errorf("%+v on a host without AppArmor: %v", pod, v)
		}
		if v := Admit(pod, nil, Host{AppArmor: true}).Rejected; v != nil {
			t.Errorf("%+v on a host with AppArmor: %v", pod, v)
		}
	}
}
