//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/everynode/everynode/test/e2e/cluster"
)

// DaemonSets on three nodes, as their users meet them. The updates leave the nodes alone, and run
// at once; what changes the nodes comes after them, one by one.
func TestDaemonSets(t *testing.T) {
	c := cluster.New(t, programs(t), "--node-monitor-grace-period", "20s")
	for range 3 {
		c.AddNode()
	}
	c.AwaitReady()
	f := &fleet{Cluster: c}
	t.Run("updates", func(t *testing.T) {
		for _, test := range updates {
			t.Run(test.name, func(t *testing.T) {
				t.Parallel()
				test.run(f.on(t))
			})
		}
	})
	for _, test := range placements {
		t.Run(test.name, func(t *testing.T) { test.run(f.on(t)) })
	}
}

// fleet is a cluster as one of the subtests uses it.
type fleet struct {
	*cluster.Cluster
	*testing.T
}

type fleetTest struct {
	name string
	run  func(*fleet)
}

func (f *fleet) on(t *testing.T) *fleet { return &fleet{Cluster: f.For(t), T: t} }

// says fails unless a text matches all of the expressions.
func (f *fleet) says(what, text string, want ...string) {
	f.Helper()
	for _, w := range want {
		if !regexp.MustCompile("(?m)" + w).MatchString(text) {
			f.Errorf("%s does not say %q:\n%s", what, w, text)
		}
	}
}

// awaitSays waits until what a command prints matches the expression.
func (f *fleet) awaitSays(what, want string, command func() cluster.Result) {
	f.Helper()
	cluster.Await(f, what, time.Minute, func(context.Context) error {
		r := command()
		if !regexp.MustCompile("(?m)" + want).MatchString(r.Stdout + r.Stderr) {
			return fmt.Errorf("no %q in\n%s%s", want, r.Stdout, r.Stderr)
		}
		return nil
	})
}

// why is what `everynode why` says of a DaemonSet.
func (f *fleet) why(name string) cluster.Result { return f.Everynode("", "why", "ds/"+name) }

// plan is what `everynode plan` says of a manifest.
func (f *fleet) plan(manifest string) string {
	f.Helper()
	r := f.Everynode(manifest, "plan", "-f", "-")
	if r.Code != 0 {
		f.Fatalf("plan: code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// settle waits until an update is done, as kubectl sees it, and returns the pods.
func (f *fleet) settle(name string) map[string]*corev1.Pod {
	f.Helper()
	f.says("rollout status", f.MustKubectl("rollout", "status", "ds/"+name, "--timeout=60s"), `daemon set "`+name+`" successfully rolled out`)
	return awaitOnEach(f, f.Cluster, name, time.Minute)
}

// pods are those of an app by node, whatever they are up to.
func (f *fleet) pods(app string) map[string]*corev1.Pod {
	f.Helper()
	pods, err := podsOf(context.Background(), f.Cluster, app)
	if err != nil {
		f.Fatal(err)
	}
	return pods
}

// revision is the hash of a DaemonSet's template that its pods carry; "" if they differ.
func revision(pods map[string]*corev1.Pod) string {
	hashes := map[string]bool{}
	for _, p := range pods {
		hashes[p.Labels["controller-revision-hash"]] = true
	}
	if len(hashes) != 1 {
		return ""
	}
	return slices.Collect(maps.Keys(hashes))[0]
}

// kept are the nodes whose pod is the same in both, and has not restarted in between.
func kept(before, after map[string]*corev1.Pod) []string {
	var nodes []string
	for node, was := range before {
		if is := after[node]; is != nil && is.UID == was.UID && restarts(is) == restarts(was) && containerID(is) == containerID(was) {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

// set is a DaemonSet of testapp with more of a spec, in YAML, and with an environment that says its version.
func set(name, version, spec string) string {
	text := strings.Replace(daemonSet(name, "sleep"), "\nspec:\n", "\nspec:\n"+spec, 1)
	return strings.Replace(text, `args: ["sleep"]`, `args: ["sleep"], env: [{name: VERSION, value: "`+version+`"}]`, 1)
}

// observer watches an app's pods, and remembers the worst that it saw.
type observer struct {
	stop context.CancelFunc
	done chan struct{}

	mu sync.Mutex
	// mostOnNode is how many pods a node had at once, surging how many nodes had several at once of which none was
	// going and one not ready yet, and fewestReady how many nodes had a ready one.
	mostOnNode, surging, fewestReady int
	err                              error
}

// observe begins with what there is.
func (f *fleet) observe(app string) *observer {
	f.Helper()
	config := f.Config()
	config.Timeout = 0 // a watch lasts
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	o := &observer{stop: cancel, done: make(chan struct{}), fewestReady: len(f.Nodes)}
	f.Cleanup(func() { cancel(); <-o.done })
	matching := metav1.ListOptions{LabelSelector: "app=" + app}
	list, err := client.CoreV1().Pods("default").List(ctx, matching)
	if err != nil {
		close(o.done)
		f.Fatal(err)
	}
	matching.ResourceVersion = list.ResourceVersion
	events, err := client.CoreV1().Pods("default").Watch(ctx, matching)
	if err != nil {
		close(o.done)
		f.Fatal(err)
	}
	pods := map[types.UID]*corev1.Pod{}
	for i := range list.Items {
		pods[list.Items[i].UID] = &list.Items[i]
	}
	o.look(pods)
	go func() {
		defer close(o.done)
		for e := range events.ResultChan() {
			pod, ok := e.Object.(*corev1.Pod)
			switch {
			case !ok && ctx.Err() != nil:
				return // it was told to end
			case !ok:
				o.mu.Lock()
				o.err = fmt.Errorf("watch: %v", e.Object)
				o.mu.Unlock()
				return
			case e.Type == watch.Deleted:
				delete(pods, pod.UID)
			default:
				pods[pod.UID] = pod
			}
			o.look(pods)
		}
	}()
	return o
}

func (o *observer) look(pods map[types.UID]*corev1.Pod) {
	on, staying, readyOn := map[string]int{}, map[string]int{}, map[string]int{}
	for _, p := range pods {
		node := p.Spec.NodeName
		if over(p) {
			continue
		}
		if on[node]++; p.DeletionTimestamp == nil {
			staying[node]++
		}
		if ready(p) {
			readyOn[node]++
		}
	}
	surging := 0
	o.mu.Lock()
	defer o.mu.Unlock()
	for node, n := range on {
		o.mostOnNode = max(o.mostOnNode, n)
		if staying[node] > 1 && readyOn[node] < staying[node] {
			surging++
		}
	}
	o.surging, o.fewestReady = max(o.surging, surging), min(o.fewestReady, len(readyOn))
}

// end says what was seen: the pods on a node at most, the nodes with several at most, the nodes with a ready one at least.
func (f *fleet) end(o *observer) (mostOnNode, surging, fewestReady int) {
	f.Helper()
	o.stop()
	<-o.done
	if o.err != nil {
		f.Fatal(o.err)
	}
	return o.mostOnNode, o.surging, o.fewestReady
}
