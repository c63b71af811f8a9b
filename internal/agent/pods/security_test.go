package pods

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestSandboxProfile: sandboxes have the node's own profile, but for those that another runtime may run.
func TestSandboxProfile(t *testing.T) {
	const own, byDefault = runtimeapi.SecurityProfile_Localhost, runtimeapi.SecurityProfile_RuntimeDefault
	for _, c := range []struct {
		name, profile string
		class         *string
		want          runtimeapi.SecurityProfile_ProfileType
	}{
		{"the node's", "/profile.json", nil, own},
		{"no class", "/profile.json", new(""), own},
		{"another runtime", "/profile.json", new("gvisor"), byDefault},
		{"none given", "", nil, byDefault},
	} {
		got := sandboxSecurity(&corev1.Pod{Spec: corev1.PodSpec{RuntimeClassName: c.class}}, c.profile).Seccomp
		if got.ProfileType != c.want || got.LocalhostRef != "" && got.LocalhostRef != c.profile || (got.LocalhostRef == "") != (c.want == byDefault) {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
