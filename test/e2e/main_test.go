//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/everynode/everynode/test/e2e/cluster"
)

// appImage is the image of testapp under its own name.
const appImage = "e2e.local/testapp:1"

func TestMain(m *testing.M) { cluster.Main(m) }

// programs are the binaries under test and the images, made once.
func programs(t testing.TB) cluster.Programs {
	t.Helper()
	p, err := prepare()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var prepare = sync.OnceValues(func() (cluster.Programs, error) {
	var p cluster.Programs
	var err error
	if p.Everynode, err = program("EVERYNODE_BIN", "../../bin/everynode"); err != nil {
		return p, err
	}
	if p.Kubectl, err = program("KUBECTL_BIN", "../../bin/kubectl"); err != nil {
		return p, err
	}
	dir, err := cluster.TempDir("images")
	if err != nil {
		return p, err
	}
	app := filepath.Join(dir, "testapp")
	build := exec.Command("go", "build", "-o", app, "./testapp")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // its images hold nothing else, no C library either
	if out, err := build.CombinedOutput(); err != nil {
		return p, fmt.Errorf("building testapp: %w\n%s", err, out)
	}
	for file, image := range map[string]cluster.Image{
		"app.tar":           {Names: []string{appImage}, Links: nil, Config: v1.Config{Entrypoint: []string{"/bin/testapp"}}},
		"node-exporter.tar": {Names: []string{"docker.io/prom/node-exporter:v1.5.0"}, Links: []string{"bin/node_exporter"}, Config: v1.Config{Entrypoint: []string{"/bin/node_exporter"}}},
		"seeds.tar": {
			Names: []string{"gcr.io/google_containers/pause:2.0", "quay.io/fluentd_elasticsearch/fluentd:v2.5.2", "docker.io/fluent/fluentd-kubernetes-daemonset:v1-debian-elasticsearch", "docker.io/library/monitoring-agent:v1", "docker.io/library/monitoring-agent:v2"},
			Links: nil, Config: v1.Config{Entrypoint: []string{"/bin/testapp"}, Cmd: []string{"sleep"}},
		},
	} {
		image.Program, image.Path = app, "bin/testapp"
		path := filepath.Join(dir, file)
		if err := image.Write(path); err != nil {
			return p, fmt.Errorf("image %s: %w", file, err)
		}
		p.Images = append(p.Images, path)
	}
	return p, nil
})

func program(env, fallback string) (string, error) {
	path := os.Getenv(env)
	if path == "" {
		path = fallback
	}
	path, err := filepath.Abs(path)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		return "", fmt.Errorf("%w; `make build bin/kubectl` makes it, and %s names another", err, env)
	}
	return path, nil
}

// daemonSet is a small DaemonSet of testapp.
func daemonSet(name string, args ...string) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: DaemonSet
metadata: {name: %[1]s, namespace: default}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - {name: app, image: "%[2]s", args: ["%[3]s"]}
`, name, appImage, strings.Join(args, `", "`))
}

// over says that a pod has ended and is on its way out: its successor need not wait for it.
func over(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp != nil && (pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed)
}

// podsOf returns the pods of an app by the node they are on, and fails if a node has two.
func podsOf(ctx context.Context, c *cluster.Cluster, app string) (map[string]*corev1.Pod, error) {
	list, err := c.Client().CoreV1().Pods("default").List(ctx, metav1.ListOptions{LabelSelector: "app=" + app})
	if err != nil {
		return nil, err
	}
	pods := map[string]*corev1.Pod{}
	for i := range list.Items {
		pod := &list.Items[i]
		if over(pod) {
			continue
		}
		if other := pods[pod.Spec.NodeName]; other != nil {
			return nil, fmt.Errorf("node %s has two pods, %s and %s", pod.Spec.NodeName, other.Name, pod.Name)
		}
		pods[pod.Spec.NodeName] = pod
	}
	return pods, nil
}

// awaitOnEach waits until every node runs one ready pod of an app, and returns them.
func awaitOnEach(t testing.TB, c *cluster.Cluster, app string, timeout time.Duration) map[string]*corev1.Pod {
	t.Helper()
	var pods map[string]*corev1.Pod
	cluster.Await(t, "one ready pod of "+app+" on each node", timeout, func(ctx context.Context) error {
		var err error
		if pods, err = podsOf(ctx, c, app); err != nil {
			return err
		}
		if len(pods) != len(c.Nodes) {
			return fmt.Errorf("pods on %d of %d nodes", len(pods), len(c.Nodes))
		}
		for node, pod := range pods {
			if !ready(pod) {
				return fmt.Errorf("pod %s on %s is %s: %+v", pod.Name, node, pod.Status.Phase, pod.Status.ContainerStatuses)
			}
		}
		return nil
	})
	return pods
}

func ready(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue && pod.DeletionTimestamp == nil
		}
	}
	return false
}
