//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/everynode/everynode/test/e2e/cluster"
)

// Every example runs as it is written; a stand-in takes the place of fluentd.
func TestExamples(t *testing.T) {
	c := cluster.New(t, programs(t))
	a, b := c.AddNode(), c.AddNode()
	c.AwaitReady()
	c.MustKubectl("label", "node", a.Name, "kubernetes.io/e2e-az-name=e2e-az1", "topology.kubernetes.io/zone=z1")
	c.MustKubectl("label", "node", b.Name, "kubernetes.io/e2e-az-name=e2e-az3", "topology.kubernetes.io/zone=z2")

	works := map[string]func(){
		"node-exporter.yaml": func() {
			c.MustKubectl("-n", "monitoring", "rollout", "status", "ds/node-exporter", "--timeout=60s")
			for _, n := range c.Nodes {
				h := &host{Machine: n.Machine, t: t}
				h.awaitMetrics()
			}
		},
		"fluentd.yaml": func() {
			c.MustKubectl("-n", "kube-system", "rollout", "status", "ds/fluentd", "--timeout=60s")
			for file, want := range map[string]string{"/fluentd/etc/fluent.conf": "@type kubernetes_metadata", "/var/run/secrets/kubernetes.io/serviceaccount/namespace": "kube-system"} {
				if out := c.MustKubectl("-n", "kube-system", "exec", "ds/fluentd", "--", "/bin/testapp", "cat", file); !strings.Contains(out, want) {
					t.Errorf("%s in fluentd's container is %q", file, out)
				}
			}
			if out := c.MustKubectl("auth", "can-i", "list", "pods", "-A", "--as=system:serviceaccount:kube-system:fluentd"); !strings.Contains(out, "yes") {
				t.Errorf("fluentd may list pods: %s", out)
			}
		},
		"with-node-affinity.yaml": func() { runsOn(t, c, "with-node-affinity", a.Name) },
		"with-pod-affinity.yaml": func() {
			zone := c.MustKubectl("get", "pod", "security-s1", "-o", "jsonpath={.spec.nodeName}")
			runsOn(t, c, "security-s1", zone)
			runsOn(t, c, "with-pod-affinity", zone)
		},
	}
	files, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(files) != len(works) {
		t.Fatalf("examples %q, %v; this test knows %d", files, err, len(works))
	}
	for _, file := range files {
		path, err := filepath.Abs(file)
		if err != nil {
			t.Fatal(err)
		}
		c.MustKubectl("apply", "-f", path)
		if strings.HasSuffix(file, "with-pod-affinity.yaml") { // its node follows
			c.MustKubectl("wait", "--for=condition=PodScheduled", "pod/security-s1", "--timeout=30s")
		}
		works[filepath.Base(file)]()
		c.MustKubectl("delete", "-f", path, "--timeout=60s")
	}
}

func runsOn(t *testing.T, c *cluster.Cluster, pod, node string) {
	t.Helper()
	cluster.Await(t, pod+" runs on "+node, 60*time.Second, func(context.Context) error {
		if out := c.Kubectl("get", "pod", pod, "-o", "jsonpath={.status.phase} {.spec.nodeName}").Stdout; out != "Running "+node {
			return fmt.Errorf("%s\n%s", out, c.Kubectl("describe", "pod", pod).Stdout)
		}
		return nil
	})
}
