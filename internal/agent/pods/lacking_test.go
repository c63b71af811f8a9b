package pods

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"

	"github.com/everynode/everynode/internal/agent/volumes"
)

// A pod that asks for what this node cannot do says why in its status and in an event, in words that
// tell what would help; the others run.
func TestPodsThatAskForWhatTheNodeLacks(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	host := func(path string, kind corev1.HostPathType) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			pod.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path, Type: &kind}}}}
			pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}
		}
	}
	missing := filepath.Join(filepath.Dir(file), "missing")
	for name, c := range map[string]struct {
		pod  func(*corev1.Pod)
		fail string // a call of the runtime
		err  error

		state, reason string
		want          []string
	}{
		"an unknown runtime class": {
			pod:   func(pod *corev1.Pod) { pod.Spec.RuntimeClassName = ptr.To("kata") },
			state: "Pending c:ContainerCreating", reason: "FailedCreatePodSandBox", want: []string{`runtimeClassName "kata"`, "not found", "make that RuntimeClass"},
		},
		"a runtime class that the runtime does not know": {
			pod: func(pod *corev1.Pod) { pod.Spec.RuntimeClassName = ptr.To("known") }, fail: "RunPodSandbox", err: status.Error(codes.Unknown, `no runtime for "known" is configured`),
			state: "Pending c:ContainerCreating", reason: "FailedCreatePodSandBox", want: []string{`no runtime for "known" is configured`},
		},
		"a user namespace": {
			pod:   func(pod *corev1.Pod) { pod.Spec.HostUsers = ptr.To(false) },
			state: "Pending c:ContainerCreating", reason: "FailedCreatePodSandBox", want: []string{"hostUsers: false", "leave hostUsers out"},
		},
		"a missing character device": {
			pod: host(missing, corev1.HostPathCharDev), state: "Pending c:ContainerCreating", reason: "FailedMount", want: []string{missing, "does not exist", "CharDevice", "driver"},
		},
		"a missing block device": {
			pod: host(missing, corev1.HostPathBlockDev), state: "Pending c:ContainerCreating", reason: "FailedMount", want: []string{missing, "does not exist", "BlockDevice", "driver"},
		},
		"a file for a device": {
			pod: host(file, corev1.HostPathCharDev), state: "Pending c:ContainerCreating", reason: "FailedMount", want: []string{file, "not a character device but a file"},
		},
		"a file for a directory": {
			pod: host(file, corev1.HostPathDirectory), state: "Pending c:ContainerCreating", reason: "FailedMount", want: []string{file, "not a directory but a file"},
		},
		"a file for a directory to be made": {
			pod: host(file, corev1.HostPathDirectoryOrCreate), state: "Pending c:ContainerCreating", reason: "FailedMount", want: []string{file, "not a directory but a file"},
		},
		"a directory in a file": {
			pod: host(filepath.Join(file, "below"), corev1.HostPathDirectoryOrCreate), state: "Pending c:ContainerCreating", reason: "FailedMount", want: []string{file, "not a directory"},
		},
		"an AppArmor profile that is not loaded": {
			pod: func(*corev1.Pod) {}, fail: "CreateContainer", err: status.Error(codes.Unknown, "failed to create containerd container: apparmor profile not found x"),
			state: "Pending c:CreateContainerError", reason: "Failed", want: []string{"apparmor profile not found x"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, n *node) {
				n.stop()
				options := volumes.Options{Root: n.options.RootDir, Objects: noObjects{}, NodeName: "n1"}
				if err := options.Validate(); err != nil {
					t.Fatal(err)
				}
				n.options.Volumes = volumes.New(options)
				n.options.RuntimeHandler = func(class string) (string, error) {
					if class == "known" {
						return class, nil
					}
					return "", apierrors.NewNotFound(nodev1.Resource("runtimeclasses"), class)
				}
				n.start()
				pod := podNamed("bad", command("c", "run"))
				c.pod(pod)
				for range 5 {
					n.runtime.FailNext(c.fail, c.err)
				}
				n.create(pod)
				after(4 * time.Second)
				n.want("bad", c.state)
				waiting := ptr.Deref(n.get("bad").Status.ContainerStatuses[0].State.Waiting, corev1.ContainerStateWaiting{})
				_, events := n.log()
				event := ""
				for _, e := range events {
					if strings.Contains(e, " "+c.reason+" ") {
						event = e
					}
				}
				for _, want := range c.want {
					if !strings.Contains(waiting.Message, want) || !strings.Contains(event, want) {
						t.Errorf("no %q in status %q or event %q", want, waiting.Message, event)
					}
				}
				after(time.Minute)
				n.create(podNamed("good", command("c", "run")))
				after(3 * time.Second)
				n.want("good", "Running c:running*")
				n.remove("bad", 0)
				after(5 * time.Second)
				if _, err := n.stored("default", "bad"); err == nil {
					t.Error("it cannot be deleted")
				}
			})
		})
	}
}
