package pods

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Sidecars get their preStop hooks when the pod begins to end, and their signals in
// reverse order once the containers proper are gone.
func TestSidecarsEndInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		var mu sync.Mutex
		var hooks []string
		n.runtime.Run = func(_ string, cmd []string) (string, int) {
			mu.Lock()
			defer mu.Unlock()
			hooks = append(hooks, strings.Join(cmd, " ")+" at "+time.Now().Format("05"))
			return "", 0
		}
		n.start()
		always := corev1.ContainerRestartPolicyAlways
		pod := podNamed("p", command("main", "deaf"))
		for _, name := range []string{"first", "second"} {
			c := command(name, "run")
			c.RestartPolicy = &always
			c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"bye", name}}}}
			pod.Spec.InitContainers = append(pod.Spec.InitContainers, c)
		}
		n.create(pod)
		after(2 * time.Second)
		n.want("p", "Running first:running* second:running* main:running*")
		n.remove("p", 5)
		after(10 * time.Second)
		n.want("p", "gone")
		slices.Sort(hooks)
		if want := []string{"bye first at 02", "bye second at 02"}; !slices.Equal(hooks, want) {
			t.Errorf("hooks ran %v, want %v", hooks, want)
		}
		stops := slices.DeleteFunc(n.runtime.Calls(), func(c string) bool { return !strings.HasPrefix(c, "StopContainer") })
		if want := []string{"StopContainer main 0 grace 5", "StopContainer second 0 grace 2", "StopContainer first 0 grace 2"}; !slices.Equal(stops, want) {
			t.Errorf("stops %v, want %v", stops, want)
		}
		n.stop()
	})
}
