//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/everynode/everynode/test/e2e/cluster"
)

const manifestFolder = "/var/lib/everynode/manifests"

// manifestOf is a static pod of testapp that serves on a port of the host.
func manifestOf(name string, port int) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  terminationGracePeriodSeconds: 2
  priorityClassName: system-node-critical
  containers:
  - {name: app, image: "%s", args: [serve, "8080"], ports: [{containerPort: 8080, hostPort: %d}]}
`, name, appImage, port)
}

// place writes a manifest on a node, at once and whole.
func place(t *testing.T, n *cluster.Node, name, text string) {
	t.Helper()
	dir := n.Path(manifestFolder)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// mirror waits until the API shows the static pod as ready, and it is another one than before.
func mirror(t *testing.T, c *cluster.Cluster, name string, before *corev1.Pod) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	cluster.Await(t, "the mirror "+name, 60*time.Second, func(ctx context.Context) (err error) {
		if pod, err = c.Client().CoreV1().Pods("default").Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		if !ready(pod) || before != nil && pod.UID == before.UID {
			return fmt.Errorf("UID %s, %s: %+v", pod.UID, pod.Status.Phase, pod.Status.ContainerStatuses)
		}
		return nil
	})
	return pod
}

// Static pods are seen, shown, changed and ended; what befalls their mirrors does not touch them.
func TestStaticPods(t *testing.T) {
	c := cluster.New(t, programs(t))
	n := c.AddNode("--pod-manifest-path", manifestFolder)
	c.AwaitReady()
	place(t, n, "web.yaml", manifestOf("web", 8080))
	name := "web-" + n.Name
	web := mirror(t, c, name, nil)
	hash := web.Annotations["kubernetes.io/config.hash"]
	if web.Annotations["kubernetes.io/config.mirror"] != hash || web.Annotations["kubernetes.io/config.source"] != "file" || hash == "" || *web.Spec.Priority != 2000001000 {
		t.Errorf("priority %v, annotations %v", *web.Spec.Priority, web.Annotations)
	}
	if owner := web.OwnerReferences; len(owner) != 1 || owner[0].Kind != "Node" || owner[0].Name != n.Name {
		t.Errorf("owners %v", owner)
	}
	if out := c.MustKubectl("logs", name); !strings.Contains(out, "listening on :8080") {
		t.Errorf("logs: %s", out)
	}
	if out := c.MustKubectl("exec", name, "--", "/bin/testapp", "hostname"); !strings.Contains(out, "web-") {
		t.Errorf("exec: %s", out)
	}
	if out := c.MustKubectl("describe", "pod", name); !strings.Contains(out, "Container started") {
		t.Errorf("describe shows none of its events: %s", out)
	}

	c.MustKubectl("delete", "pod", name, "--wait=false")
	again := mirror(t, c, name, web)
	if containerID(again) != containerID(web) || restarts(again) != 0 {
		t.Errorf("the deletion of the mirror touched the pod: container %s, and now %s", containerID(web), containerID(again))
	}

	place(t, n, "bad.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: bad}\nspec: {containers: []}\n")
	cluster.Await(t, "an event names the broken file", 30*time.Second, func(context.Context) error {
		r := c.Kubectl("get", "events", "-A", "--field-selector", "reason=InvalidStaticPod")
		if !strings.Contains(r.Stdout, "bad.yaml") || !strings.Contains(r.Stdout, "spec.containers: Required value") {
			return fmt.Errorf("events: %s", r.Stdout)
		}
		return nil
	})
	place(t, n, "web.yaml", manifestOf("web", 8081))
	changed := mirror(t, c, name, again)
	if containerID(changed) == containerID(web) || changed.Spec.Containers[0].Ports[0].HostPort != 8081 {
		t.Errorf("the changed manifest runs as %+v", changed.Spec.Containers)
	}

	n.Agent.Kill()
	n.StartAgent(c.JoinToken())
	c.MustKubectl("delete", "node", n.Name) // the agent must be started anew for a node to come back
	n.Agent.Kill()
	n.StartAgent(c.JoinToken())
	c.AwaitReady()
	back := mirror(t, c, name, changed)
	if containerID(back) != containerID(changed) || restarts(back) != 0 {
		t.Errorf("the deletion of the node touched the static pod: container %s, and now %s", containerID(changed), containerID(back))
	}
	if err := os.Remove(filepath.Join(n.Path(manifestFolder), "web.yaml")); err != nil {
		t.Fatal(err)
	}
	cluster.Await(t, "the static pod is gone, here and there", 30*time.Second, func(ctx context.Context) error {
		uids, err := n.ReadySandboxes(ctx)
		if err != nil {
			return err
		}
		if r := c.Kubectl("get", "pod", name); r.Code == 0 || len(uids) > 0 {
			return fmt.Errorf("sandboxes %v, and %s", uids, r.Stdout)
		}
		return nil
	})
}

// daemonWithObjects is a DaemonSet that mounts a ConfigMap and a Secret.
func daemonWithObjects(name string) string {
	return strings.NewReplacer(
		"      containers:\n", "      volumes: [{name: cfg, configMap: {name: settings}}, {name: sec, secret: {secretName: password}}]\n      containers:\n",
		`"sleep"]}`, `"sleep"], volumeMounts: [{name: cfg, mountPath: /cfg}, {name: sec, mountPath: /sec}],
         env: [{name: FROM_SECRET, valueFrom: {secretKeyRef: {name: password, key: k}}}]}`,
	).Replace(daemonSet(name, "sleep"))
}

// A node that boots with no server in sight runs its static pods and its DaemonSets' pods, and
// nothing else; when the server is back, what changed meanwhile happens, and nothing more.
func TestBootWithoutServer(t *testing.T) {
	c := cluster.New(t, programs(t))
	n := c.AddNode("--pod-manifest-path", manifestFolder)
	c.AwaitReady()
	place(t, n, "web.yaml", manifestOf("web", 8080))
	c.MustKubectl("create", "configmap", "settings", "--from-literal=k=plain")
	c.MustKubectl("create", "secret", "generic", "password", "--from-literal=k=hunter2")
	for _, name := range []string{"stays", "leaves", "rolls"} {
		c.Apply(daemonWithObjects(name))
	}
	c.MustKubectl("run", "bare", "--image="+appImage, "--image-pull-policy=IfNotPresent", "--", "sleep")
	want := []string{mirror(t, c, "web-"+n.Name, nil).Annotations["kubernetes.io/config.hash"]}
	uids := map[string]string{"web": want[0]}
	for _, name := range []string{"stays", "leaves", "rolls"} {
		uid := string(awaitOnEach(t, c, name, 60*time.Second)[n.Name].UID)
		uids[name] = uid
		want = append(want, uid)
	}
	slices.Sort(want)
	c.MustKubectl("wait", "pod/bare", "--for=condition=Ready", "--timeout=60s")
	records(t, n)

	c.Server.Kill()
	n.Reboot(c.JoinToken())
	runs := func(when string) {
		t.Helper()
		cluster.Await(t, when, 60*time.Second, func(ctx context.Context) error {
			got, err := n.ReadySandboxes(ctx)
			if err == nil && !slices.Equal(got, want) {
				err = fmt.Errorf("the runtime runs %v, want %v", got, want)
			}
			for _, uid := range want {
				if err == nil {
					_, _, err = n.Exec(ctx, uid, "/bin/testapp", "hostname")
				}
			}
			return err
		})
	}
	runs("the node runs its pods with no server")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	containers := map[string]string{}
	for name, uid := range uids {
		_, containers[name], _ = n.Exec(ctx, uid, "/bin/testapp", "hostname")
	}
	for file, content := range map[string]string{"/cfg/k": "plain", "/sec/k": "hunter2"} {
		if out, _, err := n.Exec(ctx, uids["stays"], "/bin/testapp", "cat", file); err != nil || out != content {
			t.Errorf("%s holds %q, %v", file, out, err)
		}
	}
	cluster.Await(t, "the static pod is reached at its host port", 20*time.Second, func(ctx context.Context) error {
		conn, err := c.Switch.Dial(ctx, "tcp", n.Address+":8080")
		if err == nil {
			_ = conn.Close()
		}
		return err
	})
	same := func(when string, names ...string) {
		t.Helper()
		for _, name := range names {
			if _, id, err := n.Exec(ctx, uids[name], "/bin/testapp", "hostname"); err != nil || id != containers[name] {
				t.Errorf("%s: the container of %s was %s and is %s (%v)", when, name, containers[name], id, err)
			}
		}
	}
	n.Agent.Kill()
	n.StartAgent(c.JoinToken())
	runs("an agent that starts with no server takes over what runs")
	same("after a restart of the agent", "web", "stays", "leaves", "rolls")

	mend := n.Cut()
	c.StartServer()
	c.AwaitServer()
	c.MustKubectl("delete", "ds", "leaves", "--cascade=foreground", "--wait=false")
	c.MustKubectl("set", "env", "ds/rolls", "CHANGED=yes")
	c.MustKubectl("delete", "pod", "bare", "--grace-period=0", "--force")
	mend()
	cluster.Await(t, "what changed meanwhile happens", 60*time.Second, func(ctx context.Context) error {
		if pods, err := podsOf(ctx, c, "leaves"); err != nil || len(pods) > 0 {
			return fmt.Errorf("pods of leaves: %d, %w", len(pods), err)
		}
		pods, err := podsOf(ctx, c, "rolls")
		if err != nil || pods[n.Name] == nil || string(pods[n.Name].UID) == uids["rolls"] || !ready(pods[n.Name]) {
			return fmt.Errorf("rolls is %v, %w", pods[n.Name], err)
		}
		return nil
	})
	c.AwaitReady()
	mirror(t, c, "web-"+n.Name, nil)
	awaitOnEach(t, c, "stays", 60*time.Second)
	same("after the server's return", "web", "stays")
	cluster.Await(t, "nothing else runs", 30*time.Second, func(ctx context.Context) error {
		pods, err := podsOf(ctx, c, "rolls")
		if err != nil || pods[n.Name] == nil {
			return fmt.Errorf("rolls: %w", err)
		}
		want := []string{uids["web"], uids["stays"], string(pods[n.Name].UID)}
		slices.Sort(want)
		got, err := n.ReadySandboxes(ctx)
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("the runtime runs %v, want %v", got, want)
		}
		return err
	})
	cluster.Await(t, "the token came with the server", 90*time.Second, func(ctx context.Context) error {
		out, _, err := n.Exec(ctx, uids["stays"], "/bin/testapp", "cat", "/var/run/secrets/kubernetes.io/serviceaccount/token")
		if err == nil && out == "" {
			err = fmt.Errorf("it is empty")
		}
		return err
	})
}

// A node that cannot prove who it is, and one that never joined, run what needs no server as well:
// the first all that it ran, the second what needs no pod network. Both join when the server is back.
func TestBootWithoutServerAndIdentity(t *testing.T) {
	c := cluster.New(t, programs(t))
	n := c.AddNode("--pod-manifest-path", manifestFolder)
	c.AwaitReady()
	place(t, n, "web.yaml", manifestOf("web", 8080))
	c.Apply(daemonSet("stays", "sleep"))
	uids := map[*cluster.Node][]string{n: {
		mirror(t, c, "web-"+n.Name, nil).Annotations["kubernetes.io/config.hash"], string(awaitOnEach(t, c, "stays", 60*time.Second)[n.Name].UID),
	}}
	cluster.Await(t, "the DaemonSet's pod is remembered", 30*time.Second, func(context.Context) error {
		_, err := os.Stat(filepath.Join(n.Path("/var/lib/everynode/agent/offline"), uids[n][1]+".pod"))
		return err
	})

	c.Server.Kill()
	n.Agent.Kill()
	certify(t, c, n, time.Now().Add(-47*time.Hour))
	n.Reboot(c.JoinToken())
	stranger := c.AddMachine()
	stranger.StartContainerd()
	place(t, stranger, "host.yaml", strings.Replace(manifestOf("host", 8080), "spec:\n", "spec:\n  hostNetwork: true\n", 1))
	stranger.StartAgent(c.JoinToken(), "--pod-manifest-path", manifestFolder)
	containers := map[string]string{}
	cluster.Await(t, "both run their pods", 90*time.Second, func(ctx context.Context) (err error) {
		if uids[stranger], err = stranger.ReadySandboxes(ctx); err == nil && len(uids[stranger]) != 1 {
			err = fmt.Errorf("the node that never joined runs %v", uids[stranger])
		}
		for n, uids := range uids {
			for _, uid := range uids {
				if err == nil {
					_, containers[uid], err = n.Exec(ctx, uid, "/bin/testapp", "hostname")
				}
			}
		}
		return err
	})

	c.StartServer()
	c.AwaitServer()
	c.AwaitReady()
	mirror(t, c, "web-"+n.Name, nil)
	mirror(t, c, "host-"+stranger.Name, nil)
	awaitOnEach(t, c, "stays", 60*time.Second)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for n, uids := range uids {
		for _, uid := range uids {
			if _, id, err := n.Exec(ctx, uid, "/bin/testapp", "hostname"); err != nil || id != containers[uid] {
				t.Errorf("%s: the container of %s was %s and is %s (%v)", n.Name, uid, containers[uid], id, err)
			}
		}
	}
}

// records waits until the node remembers its three DaemonSets' pods, and checks how.
func records(t *testing.T, n *cluster.Node) {
	t.Helper()
	dir := n.Path("/var/lib/everynode/agent/offline")
	cluster.Await(t, "the node remembers its pods", 30*time.Second, func(context.Context) error {
		files, err := filepath.Glob(filepath.Join(dir, "*.pod"))
		if err == nil && len(files) != 3 {
			err = fmt.Errorf("%d records", len(files))
		}
		for _, file := range files {
			text, readErr := os.ReadFile(file)
			info, statErr := os.Stat(file)
			if readErr != nil || statErr != nil || info.Mode().Perm() != 0o600 || bytes.Contains(text, []byte("hunter2")) {
				return cluster.Fatal(fmt.Errorf("%s can be read by others, or not by us: %w", file, errors.Join(readErr, statErr)))
			}
		}
		return err
	})
}
