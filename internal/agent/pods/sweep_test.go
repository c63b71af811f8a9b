package pods

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestFilesOfPodsThatAreGone: an agent that was killed while it cleaned up after a pod, or while
// a pod was forgotten by the runtime, removes what is left when it comes back; what other agents
// of the machine keep in the same folders is not touched.
func TestFilesOfPodsThatAreGone(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		pod := n.create(podNamed("p", command("c", "run")))
		after(time.Second)
		n.stop()
		logs, links := n.options.LogDir, n.options.LogLinkDir
		files := []string{
			filepath.Join(logs, "default_old_uid-old", "c", "0.log"),
			filepath.Join(logs, "default_old_uid-old", "c", "0.log.20260101-120000.gz"),
			filepath.Join(logs, "default_other_uid-other", "c", "0.log"),
			filepath.Join(n.manager.o.FilesDir, "uid-old", "hosts"),
		}
		for _, f := range files {
			if err := writeFile(f, []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		link := filepath.Join(links, "old_default_c-1.log")
		if err := os.Symlink(files[0], link); err != nil {
			t.Fatal(err)
		}
		n.start()
		after(time.Second)
		for _, gone := range []string{filepath.Dir(filepath.Dir(files[0])), filepath.Dir(files[3]), link} {
			if _, err := os.Lstat(gone); !os.IsNotExist(err) {
				t.Errorf("%s is still there: %v", gone, err)
			}
		}
		for _, kept := range []string{files[2], n.manager.podFiles(pod.UID), n.manager.podLogDir("default", "p", pod.UID)} {
			if _, err := os.Stat(kept); err != nil {
				t.Errorf("%v", err)
			}
		}
	})
}

// TestRecordsOfEndedPods: of a pod that has ended, the last attempt of each container stays for its logs.
func TestRecordsOfEndedPods(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		pod := podNamed("p", command("c", "exit", "1"))
		deadline := int64(25)
		pod.Spec.ActiveDeadlineSeconds = &deadline
		n.create(pod)
		after(20 * time.Second)
		if n.state("p") != "Running c:CrashLoopBackOff#2" {
			t.Errorf("the pod is %q", n.state("p"))
		}
		after(20 * time.Second)
		n.want("p", "Failed/DeadlineExceeded c:Error(1)#2")
		have := n.runtime.Configs()
		if have["c/2"] == nil || len(have) != 1 {
			t.Errorf("the runtime has %d records", len(have))
		}
		if c := n.get("p").Status.ContainerStatuses[0]; c.LastTerminationState.Terminated == nil {
			t.Errorf("the attempt before is forgotten: %+v", c)
		}
	})
}
