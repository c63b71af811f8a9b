package cli

import (
	"bytes"
	"strings"
	"testing"
)

func TestRemovedHints(t *testing.T) {
	for name, c := range map[string]struct{ message, want string }{
		"a removed DaemonSet": {
			`error: resource mapping not found for name: "fluentd" namespace: "" from "ds.yaml": no matches for kind "DaemonSet" in version "extensions/v1beta1"` + "\nensure CRDs are installed first",
			"Kubernetes 1.16 removed DaemonSet of extensions/v1beta1: write apiVersion: apps/v1; give spec.selector, equal to the labels of the template",
		},
		"twice the same, once another": {
			`no matches for kind "ClusterRoleBinding" in version "rbac.authorization.k8s.io/v1beta1", no matches for kind "ClusterRoleBinding" in version "rbac.authorization.k8s.io/v1beta1", no matches for kind "DaemonSet" in version "apps/v1beta2"`,
			"Kubernetes 1.22 removed ClusterRoleBinding of rbac.authorization.k8s.io/v1beta1: write apiVersion: rbac.authorization.k8s.io/v1\nKubernetes 1.16 removed DaemonSet of apps/v1beta2: write apiVersion: apps/v1",
		},
		"nothing took its place": {
			`no matches for kind "PodSecurityPolicy" in version "policy/v1beta1"`,
			"Kubernetes 1.25 removed PodSecurityPolicy of policy/v1beta1; label the namespace pod-security.kubernetes.io/enforce instead",
		},
		"never existed":   {`no matches for kind "Daemonset" in version "apps/v1"`, ""},
		"another message": {`Error from server (NotFound): daemonsets.apps "x" not found`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := strings.Join(removedHints(c.message), "\n"); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestKubectlFatal(t *testing.T) {
	var b bytes.Buffer
	kubectlFatal(&b, `error: no matches for kind "DaemonSet" in version "apps/v1beta2"`)
	kubectlFatal(&b, "")
	want := "error: no matches for kind \"DaemonSet\" in version \"apps/v1beta2\"\nhint: Kubernetes 1.16 removed DaemonSet of apps/v1beta2: write apiVersion: apps/v1\n"
	if b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestCutDataDir(t *testing.T) {
	for _, c := range []struct{ args, dir, rest string }{
		{"get ds", "/var/lib/everynode", "get ds"},
		{"--data-dir /d get ds", "/d", "get ds"},
		{"--data-dir=/d get ds", "/d", "get ds"},
		{"create --data-dir /d", "/var/lib/everynode", "create --data-dir /d"},
		{"", "/var/lib/everynode", ""},
	} {
		dir, rest, err := cutDataDir(strings.Fields(c.args))
		if err != nil || dir != c.dir || strings.Join(rest, " ") != c.rest {
			t.Errorf("%q: got %q, %q, %v", c.args, dir, rest, err)
		}
	}
	if _, _, err := cutDataDir([]string{"--data-dir"}); err == nil {
		t.Error("--data-dir without a value was accepted")
	}
}
