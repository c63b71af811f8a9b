package manifests

import (
	"testing"
	"time"

	"github.com/everynode/everynode/internal/decide/podlife"
)

// FuzzManifest: whatever stands in a file, it is refused with a reason, or it is a pod that can be
// decided on. Nothing panics, and the same text is always the same pod.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(pod("p")))
	f.Add([]byte(pod("p") + "---\n" + pod("q")))
	f.Add([]byte(`{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"},"spec":{"containers":[{"name":"c","image":"i","livenessProbe":{"httpGet":{"port":"a"}}}]}}]}`))
	f.Add([]byte("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  hostNetwork: true\n  volumes: [{name: v, projected: {sources: [{}]}}, {name: w, hostPath: {path: /}}]\n  initContainers: [{name: i, image: x, restartPolicy: Always, ports: [{hostPort: 1, containerPort: 2}]}]\n  containers: [{name: c, image: i, resources: {limits: {cpu: 1n, memory: 1Ei}}, env: [{name: e, valueFrom: {}}], lifecycle: {preStop: {}}}]\n"))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("apiVersion: v1\nkind: Pod\nmetadata: null\nspec: null\n"))
	f.Add([]byte("apiVersion: v1\nkind: PodList\nitems: [null, {}]\n"))
	folder := NewFolder("/m", "n1")
	now := time.Unix(1e9, 0)
	f.Fuzz(func(t *testing.T, data []byte) {
		c := folder.parse("/m/p.yaml", data)
		again := folder.parse("/m/p.yaml", data)
		if len(c.pods) != len(again.pods) || c.broken && len(c.problems) == 0 {
			t.Fatalf("read as %+v, and then as %+v", c, again)
		}
		for i, pod := range c.pods {
			if pod.UID != again.pods[i].UID || !IsStatic(pod) {
				t.Errorf("pod %+v", pod)
			}
			podlife.Decide(podlife.Facts{Pod: pod, Seen: now}, now)
			podlife.Admit(pod, c.pods, podlife.Host{})
		}
	})
}
