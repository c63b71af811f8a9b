package stats

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/everynode/everynode/internal/agent/measure"
)

// snapshot is one measurement of everything. It does not change once made.
type snapshot struct {
	at time.Time
	// rates: it was made with an earlier one at hand.
	rates bool
	node  nodeUse
	// all is what the pods use together; nil while there is no cgroup for them.
	all  *use
	pods []podUse
	// err is what could not be measured; the rest is there.
	err error
}

type nodeUse struct {
	cpu    cpuUse
	memory measure.NodeMemory
}

// cpuUse is processor time since the start, and per second if that is known.
type cpuUse struct {
	at      time.Time
	total   time.Duration
	rate    time.Duration // per second
	hasRate bool
	cgroup  string // whose it is
}

type use struct {
	cpu       cpuUse
	memory    measure.Memory
	processes uint64
}

type podUse struct {
	use
	pod        *corev1.Pod
	containers []containerUse
}

type containerUse struct {
	use
	name, id, image string
	started         time.Time
}

// reading is a snapshot being made.
type reading struct {
	*snapshot
	machine *measure.Machine
	base    map[string]cpuUse // by cgroup; nil without an earlier snapshot
	errs    []error
}

// read measures everything now, rates since base.
func (p *Provider) read(base *snapshot) *snapshot {
	r := &reading{snapshot: &snapshot{at: time.Now(), rates: base != nil}, machine: p.o.Machine}
	if base != nil {
		r.base = base.byCgroup()
	}
	r.readNode(p.o.CgroupRoot)
	for _, pod := range p.o.Pods.Pods() {
		r.readPod(pod, p.o.Pods.Cgroup(pod))
	}
	r.err = errors.Join(r.errs...)
	return r.snapshot
}

func (r *reading) readNode(cgroupRoot string) {
	total, err := r.machine.CPU()
	if err != nil {
		r.errs = append(r.errs, fmt.Errorf("processor time of the node: %w", err))
	}
	r.node.cpu = r.rate("/", total, time.Time{})
	if r.node.memory, err = r.machine.Memory(); err != nil {
		r.errs = append(r.errs, err)
	}
	if all, ok := r.readCgroup(cgroupRoot, time.Time{}); ok {
		r.all = &all
	}
}

// readPod adds a pod that runs.
func (r *reading) readPod(pod *corev1.Pod, cgroup string) {
	var started time.Time
	if pod.Status.StartTime != nil {
		started = pod.Status.StartTime.Time
	}
	of, ok := r.readCgroup(cgroup, started)
	if !ok {
		return
	}
	u := podUse{use: of, pod: pod}
	for status := range running(pod) {
		c := containerUse{name: status.Name, id: idOf(status), image: status.Image, started: status.State.Running.StartedAt.Time}
		if c.use, ok = r.readCgroup(path.Join(cgroup, c.id), c.started); ok {
			u.containers = append(u.containers, c)
		}
	}
	r.pods = append(r.pods, u)
}

// readCgroup measures a cgroup; one that is not there has not begun yet, or has ended.
func (r *reading) readCgroup(cgroup string, started time.Time) (use, bool) {
	c, err := r.machine.Cgroup(cgroup)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			r.errs = append(r.errs, fmt.Errorf("cgroup %s: %w", cgroup, err))
		}
		return use{}, false
	}
	return use{cpu: r.rate(cgroup, c.CPU, started), memory: c.Memory, processes: c.Processes}, true
}

// rate compares with the measurement before. What has begun since then has used all it has since
// its own start.
func (r *reading) rate(cgroup string, total time.Duration, started time.Time) cpuUse {
	u := cpuUse{at: time.Now(), total: total, cgroup: cgroup}
	if r.base == nil {
		return u
	}
	before, known := r.base[cgroup]

	if !known || before.total > total { // another of the same name
		before = cpuUse{at: started}
	}
	if before.at.IsZero() {
		return u
	}
	if window := u.at.Sub(before.at); window > 0 {
		u.rate, u.hasRate = time.Duration(float64(total-before.total)*float64(time.Second)/float64(window)), true
	}
	return u
}

func (s *snapshot) byCgroup() map[string]cpuUse {
	all := map[string]cpuUse{"/": s.node.cpu}
	if s.all != nil {
		all[s.all.cpu.cgroup] = s.all.cpu
	}
	for _, pod := range s.pods {
		all[pod.cpu.cgroup] = pod.cpu
		for _, c := range pod.containers {
			all[c.cpu.cgroup] = c.cpu
		}
	}
	return all
}

// running yields the statuses of a pod's running containers, of every kind.
func running(pod *corev1.Pod) func(yield func(*corev1.ContainerStatus) bool) {
	return func(yield func(*corev1.ContainerStatus) bool) {
		for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses} {
			for i := range list {
				if list[i].State.Running != nil && list[i].ContainerID != "" && !yield(&list[i]) {
					return
				}
			}
		}
	}
}

// idOf is the runtime's ID, without the runtime's name.
func idOf(status *corev1.ContainerStatus) string {
	_, id, _ := strings.Cut(status.ContainerID, "://")
	return id
}
