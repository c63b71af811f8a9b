package pods

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"github.com/everynode/everynode/internal/agent/manifests"
)

// folder is the node's folder of manifests.
type folder struct {
	n    *node
	dir  string
	read *manifests.Folder
}

// withFolder runs a test on a node with static pods.
func withFolder(t *testing.T, f func(t *testing.T, n *node, d *folder)) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.images.Add("image:latest", &runtimeapi.Image{Id: "sha256:1"})
		n.api.PrependReactor("create", "pods", n.createMirror)
		d := &folder{n: n, dir: t.TempDir()}
		n.start()
		n.manager.SetNode("node-uid")
		d.reread()
		f(t, n, d)
		n.stop()
	})
}

// createMirror stores a mirror as the API server does.
func (n *node) createMirror(a clienttesting.Action) (bool, runtime.Object, error) {
	pod := a.(clienttesting.CreateAction).GetObject().(*corev1.Pod)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.refuse != nil {
		return true, nil, n.refuse
	}
	if isMirror(pod) {
		n.version++
		pod.UID, pod.ResourceVersion = types.UID("mirror-"+strconv.Itoa(n.version)), strconv.Itoa(n.version)
		pod.Status = corev1.PodStatus{Phase: corev1.PodPending}
	}
	return false, nil, nil
}

// reread hands on what the folder holds; a new agent knows nothing of what an old one read.
func (d *folder) reread() manifests.Reading {
	d.n.t.Helper()
	if d.read == nil {
		d.read = manifests.NewFolder(d.dir, "n1")
	}
	r, err := d.read.Read()
	if err != nil {
		d.n.t.Fatal(err)
	}
	d.n.manager.SetStatic(r.Pods, r.Unread)
	return r
}

func (d *folder) write(name, text string) {
	d.n.t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, name), []byte(text), 0o644); err != nil {
		d.n.t.Fatal(err)
	}
	d.reread()
}

func (d *folder) remove(name string) {
	d.n.t.Helper()
	if err := os.Remove(filepath.Join(d.dir, name)); err != nil {
		d.n.t.Fatal(err)
	}
	d.reread()
}

// restart is a new agent.
func (d *folder) restart() {
	d.n.restart()
	d.read = nil
	d.n.manager.SetNode("node-uid")
	d.reread()
}

// manifest is a pod with one container.
func manifest(name, more string, words ...string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\nspec:\n  containers: [{name: c, image: 'image:latest', imagePullPolicy: IfNotPresent, command: [%s]}]\n%s",
		name, strings.Join(words, ", "), more)
}

func (n *node) serverAway(away bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.refuse, n.refuseList = nil, nil
	if away {
		n.refuse = apierrors.NewServiceUnavailable("away")
		n.refuseList = n.refuse
	}
}

func TestStaticPodAndItsMirror(t *testing.T) {
	withFolder(t, func(t *testing.T, n *node, d *folder) {
		d.write("p.yaml", manifest("p", "", "run"))
		after(3 * time.Second)
		n.want("p-n1", "Running c:running*")
		mirror := n.get("p-n1")
		static := n.manager.Pods()[0]
		if mirror.Annotations["kubernetes.io/config.mirror"] != string(static.UID) || mirror.Annotations["kubernetes.io/config.hash"] != string(static.UID) ||
			mirror.Annotations["kubernetes.io/config.source"] != "file" || mirror.UID == static.UID {
			t.Errorf("mirror %s of %s has annotations %v", mirror.UID, static.UID, mirror.Annotations)
		}
		owner := []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "n1", UID: "node-uid", Controller: ptr.To(true)}}
		if diff := cmp.Diff(owner, mirror.OwnerReferences); diff != "" {
			t.Errorf("owner (-want +got):\n%s", diff)
		}
		for _, uid := range []types.UID{"", static.UID, mirror.UID} {
			if _, err := n.manager.Container("default", "p-n1", uid, "c"); err != nil {
				t.Errorf("looked up with UID %q: %v", uid, err)
			}
		}
		if _, err := n.manager.Container("default", "p-n1", "another", "c"); err == nil {
			t.Error("another pod's UID finds the static pod")
		}

		calls := n.runtime.Calls()
		n.remove("p-n1", 30) // kubectl delete
		after(time.Second)
		n.want("p-n1", "Running c:running*")
		if again := n.get("p-n1"); again.UID == mirror.UID || again.DeletionTimestamp != nil {
			t.Error("the mirror did not come back")
		}
		n.remove("p-n1", 0) // its node was deleted, say
		after(time.Second)
		n.want("p-n1", "Running c:running*")
		for range 3 {
			d.restart()
			after(time.Second)
		}
		if diff := cmp.Diff(calls, n.runtime.Calls()); diff != "" {
			t.Errorf("what befell the mirror, or the agent, touched the pod (-before +after):\n%s", diff)
		}

		d.remove("p.yaml")
		after(time.Second)
		n.want("p-n1", "gone")
		want := []string{"StopContainer c 0 grace 30", "StopPodSandbox sandbox-1", "RemovePodSandbox sandbox-1"}
		if diff := cmp.Diff(want, n.runtime.Calls()[len(calls):]); diff != "" {
			t.Errorf("calls of the end (-want +got):\n%s", diff)
		}
	})
}

// TestStaticPodNeedsNoServer: it starts, restarts and ends while there is none, and is shown when
// there is one.
func TestStaticPodNeedsNoServer(t *testing.T) {
	withFolder(t, func(t *testing.T, n *node, d *folder) {
		n.stop()
		n.serverAway(true)
		d.write("p.yaml", manifest("p", "", "run"))
		d.write("q.yaml", manifest("q", "", "exit", "'1'", "1s"))
		n.start()
		d.restart()
		after(5 * time.Second)
		pods := n.manager.Pods()
		if len(pods) != 2 || brief(pods[0]) != "Running c:running*" || len(pods[1].Status.ContainerStatuses) == 0 || pods[1].Status.ContainerStatuses[0].RestartCount == 0 {
			t.Fatalf("with no server the node has %v", pods)
		}
		d.remove("q.yaml")
		after(2 * time.Second)
		before := len(n.runtime.Calls())
		if pods := n.manager.Pods(); len(pods) != 1 {
			t.Errorf("the pod whose file is gone is still here: %v", pods)
		}
		after(time.Minute)
		n.serverAway(false)
		after(15 * time.Second)
		n.want("p-n1", "Running c:running*")
		n.want("q-n1", "gone")
		if calls := n.runtime.Calls()[before:]; len(calls) > 0 {
			t.Errorf("the return of the server touched the pod: %v", calls)
		}
	})
}

// TestStaticPodIsRemovedWhileNoAgentRuns: with no server in sight either.
func TestStaticPodIsRemovedWhileNoAgentRuns(t *testing.T) {
	withFolder(t, func(t *testing.T, n *node, d *folder) {
		d.write("p.yaml", manifest("p", "", "run"))
		d.write("q.yaml", manifest("q", "", "run"))
		after(3 * time.Second)
		n.stop()
		n.serverAway(true)
		before := len(n.runtime.Calls())
		n.start()
		after(10 * time.Second)
		if calls := n.runtime.Calls()[before:]; len(calls) > 0 {
			t.Fatalf("before the folder was read: %v", calls)
		}
		if err := os.Remove(filepath.Join(d.dir, "p.yaml")); err != nil {
			t.Fatal(err)
		}
		d.read = nil
		n.manager.SetNode("node-uid")
		d.write("q.yaml", manifest("q", "  hostNetwork: true\n", "run"))
		after(10 * time.Second)
		calls := n.runtime.Calls()[before:]
		if got := strings.Join(calls, "; "); !strings.Contains(got, "RemovePodSandbox sandbox-1") || !strings.Contains(got, "RemovePodSandbox sandbox-2") {
			t.Errorf("calls %v", calls)
		}
		if at, end := index(calls, "RunPodSandbox q-n1"), index(calls, "RemovePodSandbox sandbox-2"); at < end {
			t.Errorf("the changed pod started before the old one had ended: %v", calls)
		}
		n.serverAway(false)
		after(15 * time.Second)
		n.want("p-n1", "gone")
		n.want("q-n1", "Running c:running*")
	})
}

func index(calls []string, prefix string) int {
	return slices.IndexFunc(calls, func(c string) bool { return strings.HasPrefix(c, prefix) })
}

// TestChangedManifestIsAnotherPod, which starts when the old one has ended in its own time.
func TestChangedManifestIsAnotherPod(t *testing.T) {
	withFolder(t, func(t *testing.T, n *node, d *folder) {
		d.write("p.yaml", manifest("p", "  terminationGracePeriodSeconds: 5\n", "deaf"))
		after(3 * time.Second)
		first := n.manager.Pods()[0].UID
		before := len(n.runtime.Calls())
		d.write("p.yaml", "# a remark changes nothing\n"+manifest("p", "  terminationGracePeriodSeconds: 5\n", "deaf"))
		after(time.Second)
		if calls := n.runtime.Calls()[before:]; len(calls) > 0 {
			t.Fatalf("a remark in the file: %v", calls)
		}
		d.write("p.yaml", manifest("p", "", "run"))
		d.write("p.yaml", manifest("p", "  hostNetwork: true\n", "run")) // and once more meanwhile
		after(10 * time.Second)
		n.want("p-n1", "Running c:running*")
		want := []string{
			"StopContainer c 0 grace 5", "StopPodSandbox sandbox-1", "RemovePodSandbox sandbox-1",
			"RunPodSandbox p-n1 0", "CreateContainer c 0", "StartContainer c 0",
		}
		if diff := cmp.Diff(want, n.runtime.Calls()[before:]); diff != "" {
			t.Errorf("calls (-want +got):\n%s", diff)
		}
		if pods := n.manager.Pods(); len(pods) != 1 || pods[0].UID == first || n.get("p-n1").Annotations[corev1.MirrorPodAnnotationKey] != string(pods[0].UID) {
			t.Errorf("pods %v", pods)
		}
		// Away and back with the very same content: the same UID, and yet another start.
		text, _ := os.ReadFile(filepath.Join(d.dir, "p.yaml"))
		d.remove("p.yaml")
		d.write("p.yaml", string(text))
		after(10 * time.Second)
		n.want("p-n1", "Running c:running*")
		if got := n.runtime.Calls()[before+len(want):]; len(got) != len(want) {
			t.Errorf("removed and put back: %v", got)
		}
	})
}

// TestBrokenManifestDisturbsNothing: not its own pod, not others, and not after a restart either.
func TestBrokenManifestDisturbsNothing(t *testing.T) {
	withFolder(t, func(t *testing.T, n *node, d *folder) {
		d.write("p.yaml", manifest("p", "", "run"))
		d.write("q.yaml", manifest("q", "", "run"))
		after(3 * time.Second)
		calls := n.runtime.Calls()
		d.write("p.yaml", "apiVersion: v1\nkind: Pod\nmetadata: [")
		after(time.Second)
		for range 2 {
			d.restart()
			after(5 * time.Second)
		}
		if diff := cmp.Diff(calls, n.runtime.Calls()); diff != "" {
			t.Errorf("a broken file (-before +after):\n%s", diff)
		}
		n.want("p-n1", "Running c:running*")
		d.remove("p.yaml")
		d.restart()
		after(5 * time.Second)
		n.want("p-n1", "gone")
		n.want("q-n1", "Running c:running*")
	})
}

func TestOrphanMirrorGoes(t *testing.T) {
	withFolder(t, func(t *testing.T, n *node, d *folder) {
		n.create(&corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "forged", Annotations: map[string]string{corev1.MirrorPodAnnotationKey: "x"}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{command("c", "run")}},
		})
		n.create(&corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "alike", Annotations: map[string]string{"kubernetes.io/config.source": "file", "kubernetes.io/config.hash": "y"}, Labels: map[string]string{staticLabel: "true"}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{command("c", "run")}},
		})
		after(3 * time.Second)
		n.want("forged", "gone")
		n.want("alike", "Running c:running*")
		n.remove("alike", 0)
		after(3 * time.Second)
		if pods := n.manager.Pods(); len(pods) > 0 {
			t.Errorf("an ordinary pod that calls itself static was not ended: %v", pods)
		}
	})
}

// TestMirrorWaitsForItsNode: which may be deleted, and made again with another UID.
func TestMirrorWaitsForItsNode(t *testing.T) {
	withFolder(t, func(t *testing.T, n *node, d *folder) {
		n.manager.SetNode("")
		d.write("p.yaml", manifest("p", "", "run"))
		after(3 * time.Second)
		n.want("p-n1", "gone")
		if pods := n.manager.Pods(); len(pods) != 1 || brief(pods[0]) != "Running c:running*" {
			t.Errorf("pods %v", pods)
		}
		n.manager.SetNode("second")
		after(500 * time.Millisecond)
		n.want("p-n1", "Running c:running*")
		if owner := n.get("p-n1").OwnerReferences[0].UID; owner != "second" {
			t.Errorf("the mirror belongs to node %s", owner)
		}
	})
}

func TestStaticPodThatDoesNotFit(t *testing.T) {
	withFolder(t, func(t *testing.T, n *node, d *folder) {
		port := "[{name: c, image: 'image:latest', imagePullPolicy: IfNotPresent, command: [run], ports: [{containerPort: 80, hostPort: 80}]}]"
		for _, name := range []string{"a", "b"} {
			d.write(name+".yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: "+name+"}\nspec:\n  containers: "+port+"\n")
		}
		after(3 * time.Second)
		n.want("a-n1", "Running c:running*")
		n.want("b-n1", "Failed/NodePorts")
		d.remove("a.yaml")
		after(15 * time.Second)
		n.want("b-n1", "Running c:running*")
	})
}

// TestAPodThatIsNoMirrorHasTheName: the static pod runs, and says why it is not shown.
func TestAPodThatIsNoMirrorHasTheName(t *testing.T) {
	withFolder(t, func(t *testing.T, n *node, d *folder) {
		n.create(podNamed("p-n1", command("c", "run")))
		after(3 * time.Second)
		d.write("p.yaml", manifest("p", "", "run"))
		after(3 * time.Second)
		if pods := n.manager.Pods(); len(pods) != 2 || brief(pods[0]) != "Running c:running*" || brief(pods[1]) != "Running c:running*" {
			t.Errorf("pods %v", pods)
		}
		n.remove("p-n1", 0)
		after(15 * time.Second)
		n.want("p-n1", "Running c:running*")
		if pods := n.manager.Pods(); len(pods) != 1 || !isMirror(n.get("p-n1")) {
			t.Errorf("pods %v", pods)
		}
	})
}

// TestAgentDiesWithAStaticPod at every moment of its start and of its end.
func TestAgentDiesWithAStaticPod(t *testing.T) {
	for at := 5 * time.Millisecond; at < 400*time.Millisecond; at += 20 * time.Millisecond {
		withFolder(t, func(t *testing.T, n *node, d *folder) {
			after(time.Second)
			d.write("p.yaml", manifest("p", "", "run"))
			after(at)
			d.restart()
			after(5 * time.Second)
			n.want("p-n1", "Running c:running*")
			starts := 0
			for _, call := range n.runtime.Calls() {
				if strings.HasPrefix(call, "StartContainer") {
					starts++
				}
			}
			if starts != 1 {
				t.Errorf("killed after %v: %d starts: %v", at, starts, n.runtime.Calls())
			}
			d.remove("p.yaml")
			after(at / 4)
			d.restart()
			after(5 * time.Second)
			n.want("p-n1", "gone")
			if pods := n.manager.Pods(); len(pods) > 0 {
				t.Errorf("killed %v into the end: %v", at/4, pods)
			}
		})
	}
}
