package podlife

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// world plays the shell and the runtime for one pod: it performs steps at once,
// except for those it was told to hold or to let fail.
type world struct {
	f    Facts
	now  time.Time
	out  strings.Builder
	hold map[Kind]bool
	fail map[Kind]string // reason of the failure
	last string          // status printed last
	done bool
	api  corev1.PodStatus
}

var epoch = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func newWorld(pod *corev1.Pod) *world {
	w := &world{now: epoch, hold: map[Kind]bool{}, fail: map[Kind]string{}}
	w.f = Facts{
		Pod: pod, Seen: epoch, HostIPs: []string{"192.0.2.1"},
		Images: map[string]ImageReady{}, Probes: map[string]Probe{}, InFlight: map[string]Step{}, Failures: map[string]Failure{}, Again: map[string]Again{}, Hooked: map[string]bool{},
	}
	return w
}

func (w *world) printf(format string, args ...any) {
	fmt.Fprintf(&w.out, "%8s  "+format+"\n", append([]any{w.now.Sub(epoch).String()}, args...)...)
}

// settle decides and performs until nothing is left to do at this time.
func (w *world) settle() {
	for round := 0; ; round++ {
		if round > 100 {
			w.printf("NEVER SETTLES")
			return
		}
		plan := Decide(w.f, w.now)
		w.note(plan)
		if len(plan.Steps) == 0 {
			return
		}
		for _, s := range plan.Steps {
			w.printf("%s", describe(s))
			w.mark(s)
			if w.hold[s.Kind] {
				w.f.InFlight[s.Key()] = s
				continue
			}
			w.perform(s)
		}
	}
}

// mark notes what a step means from its beginning on.
func (w *world) mark(s Step) {
	if s.Again != No {
		w.f.Again[s.ID] = s.Again
	}
}

func (w *world) note(plan Plan) {
	if plan.Ending && w.f.EndingSince.IsZero() {
		w.f.EndingSince = w.now
	}
	w.f.Reported = &plan.Status
	if text := summary(&plan.Status); text != w.last && plan.Report.IsZero() {
		w.last = text
		w.api = plan.Status
		w.printf("=> %s", text)
	}
	if plan.Done && !w.done {
		w.done = true
		w.printf("=> done")
	}
}

func describe(s Step) string {
	text := string(s.Kind)
	switch s.Kind {
	case EnsureImage:
		text += " " + s.Container + " " + s.Image
	case StartContainer:
		text += fmt.Sprintf(" %s #%d in %s, next delay %v", s.Container, s.Attempt, s.SandboxID, s.Delay)
	case RunSandbox:
		text += fmt.Sprintf(" #%d", s.Attempt)
	case StopContainer:
		text += fmt.Sprintf(" %s within %d of %d s, hook %v", s.ID, s.Grace, s.Total, s.Hook)
	case PreStop:
		text += fmt.Sprintf(" %s for %d s at most", s.ID, s.Grace)
	case RemoveContainer, RemoveSandbox, StopSandbox:
		text += " " + s.ID
	}
	return text + " (" + s.Why + ")"
}

func (w *world) perform(s Step) {
	delete(w.f.InFlight, s.Key())
	if reason := w.fail[s.Kind]; reason != "" {
		f := w.f.Failures[s.Key()]
		w.f.Failures[s.Key()] = Failure{At: w.now, Count: f.Count + 1, Attempt: s.Attempt, Reason: reason, Message: "it does not work"}
		return
	}
	delete(w.f.Failures, s.Key())
	switch s.Kind {
	case SetUpVolumes:
		w.f.VolumesReady = true
	case EnsureImage:
		w.f.Images[s.Container] = ImageReady{Image: s.Image, Ref: "sha256:1", Attempt: s.Attempt}
	case RunSandbox:
		w.f.Sandboxes = append(w.f.Sandboxes, Sandbox{ID: fmt.Sprintf("sandbox-%d", s.Attempt), Attempt: s.Attempt, Ready: true, Created: w.now, IPs: []string{"10.0.0.1"}})
	case StartContainer:
		w.f.Containers = append(w.f.Containers, Container{
			ID: fmt.Sprintf("%s-%d", s.Container, s.Attempt), Name: s.Container, SandboxID: s.SandboxID, Attempt: s.Attempt, State: Running,
			Created: w.now, Started: w.now, Delay: s.Delay, Image: "image", ImageRef: "sha256:1", Hash: w.hash(s.Container), Resources: w.resources(s.Container),
		})
	case ResizePod:
		w.f.Resizing = false
		for i := range w.f.Containers {
			c := &w.f.Containers[i]
			want := w.resources(c.Name)
			if c.State != Running || c.Resources == nil || want == nil {
				continue
			}
			if slices.ContainsFunc(Changed(*want, *c.Resources), func(n corev1.ResourceName) bool { return RestartsFor(w.spec(c.Name), n) }) {
				w.f.Resizing = true // it follows by a restart
				continue
			}
			c.Resources = want
		}
	case PreStop:
		w.f.Hooked[s.ID] = true
	case StopContainer:
		w.exit(s.ID, 137)
	case RemoveContainer:
		w.f.Containers = without(w.f.Containers, func(c Container) bool { return c.ID == s.ID })
	case StopSandbox:
		for i := range w.f.Sandboxes {
			if w.f.Sandboxes[i].ID == s.ID {
				w.f.Sandboxes[i].Ready = false
			}
		}
	case RemoveSandbox:
		w.f.Sandboxes = without(w.f.Sandboxes, func(b Sandbox) bool { return b.ID == s.ID })
		w.f.Containers = without(w.f.Containers, func(c Container) bool { return c.SandboxID == s.ID })
	case TearDown:
		w.f.TornDown = true
	case DeletePod:
		if text := summary(w.f.Reported); text != w.last {
			w.last = text
			w.printf("=> %s", text)
		}
		w.f.Gone = true
	}
}

func without[T any](list []T, drop func(T) bool) []T {
	var out []T
	for _, v := range list {
		if !drop(v) {
			out = append(out, v)
		}
	}
	return out
}

func (w *world) spec(name string) *corev1.Container {
	for _, c := range withInit(w.f.Pod) {
		if c.Name == name {
			return &c
		}
	}
	return nil
}

func (w *world) hash(name string) uint64 {
	if c := w.spec(name); c != nil {
		return Hash(c)
	}
	return 0
}

func (w *world) resources(name string) *corev1.ResourceRequirements {
	if c := w.spec(name); c != nil {
		return c.Resources.DeepCopy()
	}
	return nil
}

// newest returns the newest attempt of a container, by name.
func (w *world) newest(name string) *Container {
	var best *Container
	for i := range w.f.Containers {
		c := &w.f.Containers[i]
		if c.Name == name && (best == nil || c.Attempt > best.Attempt) {
			best = c
		}
	}
	return best
}

func (w *world) exit(id string, code int32) {
	for i := range w.f.Containers {
		c := &w.f.Containers[i]
		if c.ID == id && c.live() {
			c.State, c.ExitCode, c.Finished, c.Reason = Exited, code, w.now, "Error"
			if code == 0 {
				c.Reason = "Completed"
			}
		}
	}
}

// advance lets time pass, deciding whenever a plan asked to be woken.
func (w *world) advance(d time.Duration) {
	end := w.now.Add(d)
	for {
		w.settle()
		plan := Decide(w.f, w.now)
		if plan.Wake.IsZero() || !plan.Wake.After(w.now) || plan.Wake.After(end) {
			w.now = end
			w.settle()
			return
		}
		w.now = plan.Wake
	}
}

// restartAgent forgets everything that neither runtime nor API keep.
func (w *world) restartAgent() {
	pod := w.f.Pod.DeepCopy()
	pod.Status = w.api
	w.f = Facts{
		Pod: pod, Seen: w.now, HostIPs: w.f.HostIPs, Sandboxes: w.f.Sandboxes, Containers: w.f.Containers, Gone: w.f.Gone,
		Images: map[string]ImageReady{}, Probes: map[string]Probe{}, InFlight: map[string]Step{}, Failures: map[string]Failure{}, Again: map[string]Again{}, Hooked: map[string]bool{},
		Resizing: w.f.Resizing, Resize: w.f.Resize,
	}
}

// command performs one line of a script.
func (w *world) command(line string) {
	words := strings.Fields(line)
	arg := func(i int) string {
		if i < len(words) {
			return words[i]
		}
		return ""
	}
	number := func(i int) int64 { n, _ := strconv.ParseInt(arg(i), 10, 64); return n }
	switch words[0] {
	case "wait":
		d, err := time.ParseDuration(arg(1))
		if err != nil {
			panic(err)
		}
		w.advance(d)
		return
	case "exit": // exit NAME CODE
		w.exit(w.newest(arg(1)).ID, int32(number(2)))
	case "probe": // probe NAME started|ready|unready|unhealthy
		c := w.newest(arg(1))
		p := w.f.Probes[c.ID]
		switch arg(2) {
		case "started":
			p.Started = true
		case "ready":
			p.Started, p.Ready = true, true
		case "unready":
			p.Ready = false
		case "unhealthy":
			p.Unhealthy, p.Message = true, "Container "+c.Name+" failed liveness probe, will be restarted"
		}
		w.f.Probes[c.ID] = p
	case "delete": // delete GRACE
		pod, grace := w.f.Pod.DeepCopy(), number(1)
		at := metav1.NewTime(w.now.Add(time.Duration(grace) * time.Second))
		pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = &at, &grace
		w.f.Pod = pod
	case "gone":
		w.f.Gone = true
	case "evict": // evict REASON GRACE
		grace := number(2)
		w.f.Evicted = &Eviction{Verdict: Verdict{arg(1), "The node was low on resource"}, Grace: &grace, Disruption: "The node was low on resource"}
	case "shutdown": // shutdown GRACE
		grace := number(1)
		w.f.Evicted = &Eviction{Verdict: Verdict{"Terminated", "The node shuts down"}, Grace: &grace, MaySucceed: true}
	case "reclaim":
		w.f.Reclaim = true
	case "image": // image NAME IMAGE
		pod := w.f.Pod.DeepCopy()
		for i := range pod.Spec.Containers {
			if pod.Spec.Containers[i].Name == arg(1) {
				pod.Spec.Containers[i].Image = arg(2)
			}
		}
		pod.Generation++
		w.f.Pod = pod
	case "resize": // resize NAME CPU: the node agrees
		pod := w.f.Pod.DeepCopy()
		for i := range pod.Spec.Containers {
			if pod.Spec.Containers[i].Name == arg(1) {
				pod.Spec.Containers[i].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(arg(2))}
			}
		}
		pod.Generation++
		w.f.Pod, w.f.Resize, w.f.Resizing = pod, nil, true
	case "defer": // defer REASON: the node does not agree to a change
		w.f.Resize = &Verdict{Reason: arg(1), Message: "it does not fit"}
	case "condition": // condition TYPE STATUS
		pod := w.f.Pod.DeepCopy()
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: corev1.PodConditionType(arg(1)), Status: corev1.ConditionStatus(arg(2))})
		w.f.Pod = pod
	case "hold":
		w.hold[Kind(arg(1))] = true
	case "release":
		delete(w.hold, Kind(arg(1)))
		var keys []string
		for key, s := range w.f.InFlight {
			if s.Kind == Kind(arg(1)) {
				keys = append(keys, key)
			}
		}
		sort.Strings(keys)
		for _, key := range keys {
			w.perform(w.f.InFlight[key])
		}
	case "fail": // fail KIND REASON
		w.fail[Kind(arg(1))] = arg(2)
	case "mend":
		delete(w.fail, Kind(arg(1)))
	case "reboot":
		for i := range w.f.Sandboxes {
			w.f.Sandboxes[i].Ready = false
		}
		for _, c := range w.f.Containers {
			w.exit(c.ID, 255)
		}
	case "restart-agent":
		w.restartAgent()
	case "lose-record": // the runtime has lost all record of a container
		w.f.Containers = without(w.f.Containers, func(c Container) bool { return c.Name == arg(1) })
	case "decide":
	default:
		panic("unknown command " + line)
	}
	w.settle()
}

// summary is a status in one line.
func summary(s *corev1.PodStatus) string {
	parts := []string{string(s.Phase)}
	if s.Reason != "" {
		parts[0] += "/" + s.Reason
	}
	for _, list := range [][]corev1.ContainerStatus{s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses} {
		for _, c := range list {
			parts = append(parts, c.Name+"="+stateOf(c))
		}
	}
	for _, c := range s.Conditions {
		if c.Status == corev1.ConditionTrue && c.Type != corev1.PodScheduled && (isOwned(c.Type) || c.Type == corev1.DisruptionTarget) {
			parts = append(parts, "+"+string(c.Type))
		}
	}
	return strings.Join(parts, " ")
}

func stateOf(c corev1.ContainerStatus) string {
	text := ""
	switch {
	case c.State.Running != nil:
		text = "running"
	case c.State.Waiting != nil:
		text = "waiting:" + c.State.Waiting.Reason
	case c.State.Terminated != nil:
		text = fmt.Sprintf("ended:%s:%d", c.State.Terminated.Reason, c.State.Terminated.ExitCode)
	}
	if t := c.LastTerminationState.Terminated; t != nil {
		text += fmt.Sprintf("(last %s:%d)", t.Reason, t.ExitCode)
	}
	if c.RestartCount > 0 {
		text += fmt.Sprintf("#%d", c.RestartCount)
	}
	if c.Ready {
		text += "*"
	}
	return text
}
