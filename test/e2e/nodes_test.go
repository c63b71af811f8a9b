//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/everynode/everynode/test/e2e/cluster"
)

// Two nodes, one DaemonSet, one container each; pods reach each other and the API, with the rights
// of their service account and no others.
func TestTwoNodes(t *testing.T) {
	c := cluster.New(t, programs(t))
	c.AddNode()
	c.AddNode("--node-labels", "disktype=ssd")
	c.AwaitReady()
	c.Apply(daemonSet("web", "serve", "8080"))
	pods := awaitOnEach(t, c, "web", 60*time.Second)

	first, second := pods[c.Nodes[0].Name], pods[c.Nodes[1].Name]
	for _, way := range []struct{ from, to string }{
		{first.Name, second.Status.PodIP}, {second.Name, first.Status.PodIP},
	} {
		cluster.Await(t, way.from+" reaches the pod on the other node", 20*time.Second, func(context.Context) error {
			r := c.Kubectl("exec", way.from, "--", "/bin/testapp", "get", "http://"+way.to+":8080/")
			if r.Code != 0 || !strings.HasPrefix(r.Stdout, "hello from web-") {
				return fmt.Errorf("code %d: %s%s", r.Code, r.Stdout, r.Stderr)
			}
			return nil
		})
	}

	api := func(path string) cluster.Result {
		return c.Kubectl("exec", first.Name, "--", "/bin/testapp", "api", path)
	}
	if r := api("/version"); r.Code != 0 || !strings.Contains(r.Stdout, `"gitVersion"`) {
		t.Errorf("a pod asks the API for its version: code %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	const path = "/api/v1/namespaces/default/pods"
	if r := api(path); r.Code == 0 || !strings.Contains(r.Stderr, "403") || !strings.Contains(r.Stdout, "system:serviceaccount:default:default") {
		t.Errorf("a pod lists pods without a role: code %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	c.MustKubectl("create", "rolebinding", "view", "--clusterrole=view", "--serviceaccount=default:default")
	cluster.Await(t, "the pod may list pods once it is allowed to", 10*time.Second, func(context.Context) error {
		if r := api(path); r.Code != 0 || !strings.Contains(r.Stdout, `"kind":"PodList"`) {
			return fmt.Errorf("code %d: %s%s", r.Code, r.Stdout, r.Stderr)
		}
		return nil
	})

	// The set follows the nodes' labels and taints at once.
	c.MustKubectl("patch", "ds", "web", "-p", `{"spec":{"template":{"spec":{"nodeSelector":{"disktype":"ssd"}}}}}`)
	cluster.Await(t, "only the labelled node has a pod", 30*time.Second, func(ctx context.Context) error {
		pods, err := podsOf(ctx, c, "web")
		if err != nil {
			return err
		}
		if len(pods) != 1 || pods[c.Nodes[1].Name] == nil {
			return fmt.Errorf("pods on %d nodes", len(pods))
		}
		return nil
	})
	c.MustKubectl("label", "node", c.Nodes[0].Name, "disktype=ssd")
	awaitOnEach(t, c, "web", 30*time.Second)
	c.MustKubectl("delete", "ds", "web")
	cluster.Await(t, "no pod is left", 30*time.Second, func(ctx context.Context) error {
		pods, err := podsOf(ctx, c, "web")
		if err == nil && len(pods) > 0 {
			err = fmt.Errorf("%d pods", len(pods))
		}
		return err
	})
}

// The bare pods of the seeds land where they should.
func TestBarePodsLandRight(t *testing.T) {
	c := cluster.New(t, programs(t))
	for _, labels := range [][]string{
		{"kubernetes.io/e2e-az-name=e2e-az3", "failure-domain.beta.kubernetes.io/zone=z1"},
		{"kubernetes.io/e2e-az-name=e2e-az1", "failure-domain.beta.kubernetes.io/zone=z2"},
		{"kubernetes.io/e2e-az-name=e2e-az2", "failure-domain.beta.kubernetes.io/zone=z2", "another-node-label-key=another-node-label-value"},
	} {
		n := c.AddNode()
		c.AwaitReady(n)
		// These are labels that a node may not give itself.
		c.MustKubectl(append([]string{"label", "node", n.Name}, labels...)...)
	}

	landsOn := func(pod string, nodes ...*cluster.Node) {
		t.Helper()
		cluster.Await(t, pod+" runs", 60*time.Second, func(context.Context) error {
			r := c.Kubectl("get", "pod", pod, "-o", "jsonpath={.status.phase} {.spec.nodeName}")
			phase, node, _ := strings.Cut(r.Stdout, " ")
			if phase != "Running" {
				return fmt.Errorf("%s: %s", r.Stdout, c.Kubectl("describe", "pod", pod).Stdout)
			}
			for _, n := range nodes {
				if n.Name == node {
					return nil
				}
			}
			return cluster.Fatal(fmt.Errorf("it is on %s", node))
		})
	}
	c.Apply(withNodeAffinity)
	landsOn("with-node-affinity", c.Nodes[2]) // allowed on two nodes, prefers this one

	c.Apply(podWithLabel("s1", "S1", c.Nodes[0].Name))
	landsOn("s1", c.Nodes[0])
	c.Apply(withPodAffinity)
	landsOn("with-pod-affinity", c.Nodes[0]) // the only node of the zone of s1

	c.Apply(strings.NewReplacer("with-node-affinity", "nowhere", "e2e-az1", "e2e-az8", "e2e-az2", "e2e-az9").Replace(withNodeAffinity))
	cluster.Await(t, "a pod that fits nowhere says why", 20*time.Second, func(context.Context) error {
		if out := c.Kubectl("describe", "pod", "nowhere").Stdout; !strings.Contains(out, "FailedScheduling") || !strings.Contains(out, "0/3 nodes are available") {
			return fmt.Errorf("describe says: %s", out)
		}
		return nil
	})
}

func podWithLabel(name, security, node string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {security: %s}}
spec:
  nodeSelector: {kubernetes.io/hostname: %s}
  containers:
  - {name: app, image: "%s"}
`, name, security, node, appImage)
}

const withNodeAffinity = `apiVersion: v1
kind: Pod
metadata:
  name: with-node-affinity
spec:
  affinity:
    nodeAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms:
        - matchExpressions:
          - key: kubernetes.io/e2e-az-name
            operator: In
            values:
            - e2e-az1
            - e2e-az2
      preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 1
        preference:
          matchExpressions:
          - key: another-node-label-key
            operator: In
            values:
            - another-node-label-value
  containers:
  - name: with-node-affinity
    image: gcr.io/google_containers/pause:2.0
`

const withPodAffinity = `apiVersion: v1
kind: Pod
metadata:
  name: with-pod-affinity
spec:
  affinity:
    podAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
      - labelSelector:
          matchExpressions:
          - key: security
            operator: In
            values:
            - S1
        topologyKey: failure-domain.beta.kubernetes.io/zone
    podAntiAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          labelSelector:
            matchExpressions:
            - key: security
              operator: In
              values:
              - S2
          topologyKey: kubernetes.io/hostname
  containers:
  - name: with-pod-affinity
    image: gcr.io/google_containers/pause:2.0
`

// An image that cannot be had is told with its reason, and harms nothing else.
func TestImageThatCannotBeHad(t *testing.T) {
	c := cluster.New(t, programs(t))
	c.AddNode()
	c.AwaitReady()
	c.Apply(daemonSet("fine", "sleep"))
	c.Apply(strings.ReplaceAll(daemonSet("lost", "sleep"), appImage, "registry.invalid/lost:1"))
	awaitOnEach(t, c, "fine", 60*time.Second)
	cluster.Await(t, "describe says why", 60*time.Second, func(context.Context) error {
		out := c.Kubectl("describe", "pod", "-l", "app=lost").Stdout
		for _, want := range []string{"ErrImagePull", "ImagePullBackOff", `Failed to pull image "registry.invalid/lost:1"`} {
			if !strings.Contains(out, want) {
				return fmt.Errorf("no %q in: %s", want, out)
			}
		}
		return nil
	})
	if out := c.MustKubectl("get", "pods", "-l", "app=lost", "--no-headers"); !strings.Contains(out, "0/1") || !strings.Contains(out, "ImagePull") {
		t.Errorf("get pods: %s", out)
	}
	if out := c.MustKubectl("get", "ds", "--no-headers"); !strings.Contains(out, "fine") || strings.Fields(out)[3] != "1" {
		t.Errorf("get ds: %s", out)
	}
	c.MustKubectl("delete", "ds", "lost", "--timeout=30s")
}
