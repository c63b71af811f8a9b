//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/everynode/everynode/test/e2e/cluster"
)

// chaosFor is how long TestChaos kills; E2E_CHAOS names another time.
const chaosFor = 25 * time.Second

// Server, agents and containerds are killed alone and together, at any moment and again while they
// come back, under a dozen pods a node of all kinds, while more are made and deleted. No pod is lost
// or doubled, no container that ran is started again, and the nodes run what the API says.
func TestChaos(t *testing.T) {
	seed, lasts := seedOf(t), chaosFor
	if given := os.Getenv("E2E_CHAOS"); given != "" {
		var err error
		if lasts, err = time.ParseDuration(given); err != nil {
			t.Fatal(err)
		}
	}
	c := cluster.New(t, programs(t))
	x := &chaos{t: t, c: c, random: rand.New(rand.NewPCG(seed, 0)), wishes: make(chan wish, 1000), sets: map[string]bool{}, kills: map[*cluster.Node][]time.Time{}}
	for range 2 {
		n := c.AddMachine()
		n.Verbose = os.Getenv("E2E_DEBUG") != ""
		n.StartContainerd()
		n.StartAgent(c.JoinToken(), "-v", "3")
	}
	c.AwaitReady()
	granted := sync.WaitGroup{}
	granted.Go(x.grant)
	for i, kind := range append(chaosKinds, chaosKinds...) { // they are killed at once, while they are being made
		x.wish(fmt.Sprintf("steady%d", i), kind, true)
	}
	for began, round := time.Now(), 0; time.Since(began) < lasts; round++ {
		x.burst(round)
		x.change(round)
		time.Sleep(time.Duration(x.random.IntN(3000)) * time.Millisecond)
	}
	close(x.wishes)
	c.AwaitServer()
	granted.Wait()
	c.AwaitReady()
	for _, name := range x.wanted() {
		awaitOnEach(t, c, name, 90*time.Second)
	}
	cluster.Await(t, "the pods of the deleted sets are gone", 60*time.Second, func(ctx context.Context) error {
		list, err := c.Client().CoreV1().Pods("").List(ctx, metav1.ListOptions{})
		if want := len(c.Nodes) * len(x.wanted()); err == nil && len(list.Items) != want {
			err = fmt.Errorf("%d pods, want %d", len(list.Items), want)
		}
		return err
	})
	for _, n := range c.Nodes {
		sandboxes(t, c, n)
		x.bury(n)
		x.judge(n)
	}
}

// seedOf is the seed of a random test, from E2E_SEED or the clock.
func seedOf(t testing.TB) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if given := os.Getenv("E2E_SEED"); given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("E2E_SEED=%d", seed)
	return seed
}

type chaos struct {
	t      *testing.T
	c      *cluster.Cluster
	random *rand.Rand // of the test's own goroutine

	// wishes are for DaemonSets to make and to delete, granted in their order as the server permits.
	wishes chan wish
	// sets that were wished for, and whether they shall be there.
	sets map[string]bool
	// kills of a node's agent or containerd.
	kills map[*cluster.Node][]time.Time
}

type wish struct {
	name, manifest string
	there          bool
}

func (x *chaos) wish(name, kind string, there bool) {
	x.sets[name] = there
	x.wishes <- wish{name, chaosSet(name, kind), there}
}

// wanted are the sets that shall be there in the end.
func (x *chaos) wanted() []string {
	var names []string
	for name, there := range x.sets {
		if there {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (x *chaos) grant() {
	for w := range x.wishes {
		for try := 0; ; try++ {
			var r cluster.Result
			if w.there {
				r = x.c.KubectlWith(w.manifest, "apply", "-f", "-")
			} else {
				r = x.c.Kubectl("delete", "ds", w.name, "--ignore-not-found", "--wait=false")
			}
			if r.Code == 0 {
				break
			}
			if try == 600 {
				x.t.Errorf("%+v: %s%s", w, r.Stdout, r.Stderr)
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// change makes some sets, and deletes others, which may be on their way still.
func (x *chaos) change(round int) {
	for i := range 1 + x.random.IntN(3) {
		x.wish(fmt.Sprintf("round%d-%d", round, i), chaosKinds[x.random.IntN(len(chaosKinds))], true)
	}
	for _, name := range x.wanted() {
		if strings.HasPrefix(name, "round") && x.random.IntN(3) == 0 {
			x.wish(name, chaosKinds[0], false)
		}
	}
}

// burst kills a few times, 0 to 0.5 s apart; what is killed comes back within that time as well.
func (x *chaos) burst(round int) {
	kills := 1 + x.random.IntN(3)
	if x.random.IntN(4) == 0 {
		kills = 10
	}
	for range kills {
		victims := x.victims()
		var names []string
		together := sync.WaitGroup{}
		for _, v := range victims {
			names = append(names, v.name)
			together.Go(v.process().Kill)
		}
		together.Wait()
		for _, v := range victims {
			x.kills[v.node] = append(x.kills[v.node], time.Now())
		}
		x.t.Logf("%s round %d: killed %s", time.Now().Format("15:04:05.000"), round, strings.Join(names, ", "))
		x.random.Shuffle(len(victims), func(i, j int) { victims[i], victims[j] = victims[j], victims[i] })
		x.pause()
		for _, v := range victims {
			v.start()
			if x.random.IntN(2) == 0 {
				x.pause()
			}
		}
		x.pause()
	}
}

func (x *chaos) pause() { time.Sleep(time.Duration(x.random.IntN(500)) * time.Millisecond) }

type victim struct {
	name    string
	node    *cluster.Node // nil of the server
	process func() *cluster.Process
	start   func()
}

// victims are one or several processes, those of the nodes more often than the server.
func (x *chaos) victims() []victim {
	all := []victim{{"the server", nil, func() *cluster.Process { return x.c.Server }, x.c.StartServer}}
	for _, n := range x.c.Nodes {
		all = append(all,
			victim{"the agent of " + n.Name, n, func() *cluster.Process { return n.Agent }, func() { n.StartAgent(x.c.JoinToken(), "-v", "3") }},
			victim{"containerd of " + n.Name, n, func() *cluster.Process { return n.Containerd }, n.LaunchContainerd})
	}
	switch x.random.IntN(10) {
	case 0:
		return all
	case 1:
		return all[:1]
	case 2, 3: // a node's agent and its containerd
		i := 1 + 2*x.random.IntN(len(x.c.Nodes))
		return all[i : i+2]
	case 4: // any two
		x.random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		return all[:2]
	}
	i := 1 + x.random.IntN(len(all)-1)
	return all[i : i+1]
}

// chaosKinds are the kinds of pods; what is special of each is a moment at which a kill may hurt.
var chaosKinds = []string{"plain", "init", "http", "exec", "hooks", "sidecar"}

// chaosSet is a DaemonSet whose containers note in files of the node that they run.
func chaosSet(name, kind string) string {
	container := func(container, command, more string) string {
		return fmt.Sprintf(`
      - name: %[1]s
        image: %[2]s
        args: [note, /notes/%[3]s.%[1]s, $(UID), %[4]s]
        env: [{name: UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}]
        volumeMounts: [{name: notes, mountPath: /notes}]%[5]s`, container, appImage, name, command, more)
	}
	const echo = `{exec: {command: [/bin/testapp, echo, fine]}, periodSeconds: 1, failureThreshold: 1, timeoutSeconds: 60}`
	const get = `{httpGet: {path: /, port: 8080}, periodSeconds: 1, failureThreshold: 1, timeoutSeconds: 60}`
	initial, regular := "", container("app", "sleep", "")
	switch kind {
	case "init":
		initial = container("first", "echo, first", "") + container("second", `wait, 200ms`, "")
	case "http":
		regular = container("app", `serve, "8080"`, "\n        startupProbe: "+strings.Replace(get, "failureThreshold: 1", "failureThreshold: 60", 1)+
			"\n        readinessProbe: "+get+"\n        livenessProbe: "+get)
	case "exec":
		regular = container("app", "sleep", "\n        readinessProbe: "+echo+"\n        livenessProbe: "+echo)
	case "hooks":
		regular = container("app", "sleep", `
        lifecycle:
          postStart: {exec: {command: [/bin/testapp, wait, 200ms]}}
          preStop: {exec: {command: [/bin/testapp, wait, 200ms]}}`)
	case "sidecar":
		initial = container("aside", "sleep", "\n        restartPolicy: Always\n        startupProbe: "+echo)
		regular += container("other", "sleep", "")
	}
	if initial != "" {
		initial = "\n      initContainers:" + initial
	}
	return fmt.Sprintf(`apiVersion: apps/v1
kind: DaemonSet
metadata: {name: %[1]s, namespace: default}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s, kind: %[2]s}}
    spec:
      terminationGracePeriodSeconds: 2
      volumes:
      - {name: notes, hostPath: {path: /var/lib/notes, type: DirectoryOrCreate}}%[3]s
      containers:%[4]s
`, name, kind, initial, regular)
}

// judge compares what a node has and noted with what it should.
func (x *chaos) judge(n *cluster.Node) {
	ctx := context.Background()
	list, err := x.c.Client().CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + n.Name})
	if err != nil {
		x.t.Fatal(err)
	}
	sandboxes, containers, err := n.Inventory(ctx)
	if err != nil {
		x.t.Fatal(err)
	}
	twice := x.twice(n)
	for i := range list.Items {
		pod := &list.Items[i]
		err := errors.Join(unlikeStatus(pod), unlikeRuntime(pod, sandboxes, containers), twice[pod.UID])
		if delete(twice, pod.UID); err != nil {
			x.t.Errorf("%s: pod %s: %v", n.Name, pod.Name, err)
			x.explain(n, pod.Name, pod.UID, containers)
		}
	}
	for uid, err := range twice {
		x.t.Errorf("%s: a pod that is gone: %v", n.Name, err)
		x.explain(n, "", uid, nil)
	}
}

// bury waits until nothing is left in the runtime of pods that are gone: what has ended is removed
// after the pod.
func (x *chaos) bury(n *cluster.Node) {
	cluster.Await(x.t, n.Name+" has removed what pods that are gone have left", 30*time.Second, func(ctx context.Context) error {
		list, err := x.c.Client().CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + n.Name})
		if err != nil {
			return err
		}
		_, containers, err := n.Inventory(ctx)
		if err != nil {
			return err
		}
		for _, c := range containers {
			if !slices.ContainsFunc(list.Items, func(pod corev1.Pod) bool { return string(pod.UID) == c.Labels[uidLabel] }) {
				return fmt.Errorf("the runtime has container %s of a pod that the API does not have", c.Metadata.GetName())
			}
		}
		return nil
	})
}

const uidLabel = "io.kubernetes.pod.uid"

// unlikeStatus: the status of a pod tells of a restart.
func unlikeStatus(pod *corev1.Pod) error {
	var errs []error
	for _, s := range append(slices.Clone(pod.Status.InitContainerStatuses), pod.Status.ContainerStatuses...) {
		if s.RestartCount != 0 || s.LastTerminationState.Terminated != nil {
			errs = append(errs, fmt.Errorf("container %s has %d restarts: %+v, before: %+v", s.Name, s.RestartCount, s.State, s.LastTerminationState.Terminated))
		}
	}
	return errors.Join(errs...)
}

// unlikeRuntime: the runtime has not exactly one sandbox of a pod and one attempt of each container, the
// one that the API names.
func unlikeRuntime(pod *corev1.Pod, sandboxes []*runtimeapi.PodSandbox, containers []*runtimeapi.Container) error {
	var errs []error
	ready := 0
	for _, s := range sandboxes {
		if s.Metadata.GetUid() == string(pod.UID) {
			ready++
		}
	}
	if ready != 1 {
		errs = append(errs, fmt.Errorf("%d sandboxes", ready))
	}
	for _, s := range append(slices.Clone(pod.Status.InitContainerStatuses), pod.Status.ContainerStatuses...) {
		var found []string
		for _, c := range containers {
			if c.Labels[uidLabel] != string(pod.UID) || c.Metadata.GetName() != s.Name {
				continue
			}
			found = append(found, "containerd://"+c.Id)
			running := c.State == runtimeapi.ContainerState_CONTAINER_RUNNING
			if c.Metadata.GetAttempt() != 0 || running != (s.State.Running != nil) {
				errs = append(errs, fmt.Errorf("container %s: attempt %d is %s, the API says %+v", s.Name, c.Metadata.GetAttempt(), c.State, s.State))
			}
		}
		if !slices.Equal(found, []string{s.ContainerID}) {
			errs = append(errs, fmt.Errorf("container %s: the runtime has %q, the API %q", s.Name, found, s.ContainerID))
		}
	}
	return errors.Join(errs...)
}

// startsWithin is how long a process may have run before the runtime has noted that it does. What the
// runtime or the agent is killed under in this time, containerd ends itself when it is back, if the
// agent did not: it is a start that never came to its end, and is made again.
const startsWithin = 2 * time.Second

// twice tells which pods of a node had a container that ran twice although its start had come to an
// end, or beside another one.
func (x *chaos) twice(n *cluster.Node) map[types.UID]error {
	files, err := filepath.Glob(n.Path("/var/lib/notes/*"))
	if err != nil {
		x.t.Fatal(err)
	}
	errs := map[types.UID]error{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			x.t.Fatal(err)
		}
		last := map[types.UID]time.Time{}
		for line := range strings.Lines(string(text)) {
			pod, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
			stamp, beside, _ := strings.Cut(rest, " ")
			at, err := time.Parse(time.RFC3339Nano, stamp)
			if err != nil {
				x.t.Fatalf("%s: %q: %v", file, line, err)
			}
			uid := types.UID(pod)
			before, ran := last[uid]
			if last[uid] = at; beside != "" {
				errs[uid] = errors.Join(errs[uid], fmt.Errorf("%s: started at %s beside another", filepath.Base(file), stamp))
			}
			switch {
			case !ran:
			case x.killedWithin(n, before, startsWithin):
				x.t.Logf("%s: %s of pod %s was being started at %s, and is started again at %s", n.Name, filepath.Base(file), uid, before, at)
			default:
				errs[uid] = errors.Join(errs[uid], fmt.Errorf("%s: started at %s and again at %s", filepath.Base(file), before, at))
			}
		}
	}
	return errs
}

// killedWithin: the agent or the containerd of a node was killed at about that time.
func (x *chaos) killedWithin(n *cluster.Node, at time.Time, d time.Duration) bool {
	return slices.ContainsFunc(x.kills[n], func(kill time.Time) bool {
		return kill.Sub(at).Abs() < d
	})
}

// explain prints all that the node's logs say of a pod.
func (x *chaos) explain(n *cluster.Node, pod string, uid types.UID, containers []*runtimeapi.Container) {
	names := []string{string(uid)}
	for _, c := range containers {
		if c.Labels[uidLabel] == string(uid) {
			names = append(names, c.Id, c.PodSandboxId)
			x.t.Logf("%s: %s attempt %d: %s, id %s, created %s", pod, c.Metadata.GetName(), c.Metadata.GetAttempt(), c.State, c.Id, time.Unix(0, c.CreatedAt).Format("15:04:05.000"))
		}
	}
	if pod != "" {
		x.t.Log(x.c.Kubectl("describe", "pod", pod).Stdout)
	}
	for _, log := range []string{n.Agent.Log, n.Containerd.Log} {
		text, err := os.ReadFile(log)
		if err != nil {
			x.t.Fatal(err)
		}
		var said []string
		for line := range strings.Lines(string(text)) {
			if slices.ContainsFunc(names, func(name string) bool { return strings.Contains(line, name) }) {
				said = append(said, line[:min(len(line), 600)])
			}
		}
		x.t.Logf("=== %s of %s\n%s", filepath.Base(log), uid, strings.Join(said[:min(len(said), 300)], "\n"))
	}
}
