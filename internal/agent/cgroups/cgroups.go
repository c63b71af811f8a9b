package cgroups

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	ocgroups "github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/decide/podlife"
)

// Tree is the part of the machine's cgroups that belongs to one node. A nil Tree
// does nothing, for tests without root. It is safe for concurrent use.
type Tree struct {
	root   string
	limits Limits

	mu sync.Mutex
	// burstable holds the CPU requests (milli) of the burstable pods, whose sum
	// weighs their common parent against guaranteed pods.
	burstable map[types.UID]int64
	prepared  bool
}

// Limits are those of all pods together. Zero values: none.
type Limits struct {
	// Memory in bytes.
	Memory int64
	// CPU, in thousandths, weighs pods against everything else on the machine.
	CPU int64
	// PIDs bounds their processes and threads.
	PIDs int64
}

// New returns the tree below root, such as "/everynode-node1". Nothing is made yet.
func New(root string, limits Limits) (*Tree, error) {
	if !strings.HasPrefix(root, "/") || path.Clean(root) != root || root == "/" {
		return nil, fmt.Errorf("cgroup parent %q must be a clean absolute path below the root, such as /everynode-NODENAME", root)
	}
	return &Tree{root: root, limits: limits, burstable: map[types.UID]int64{}}, nil
}

// Path is the cgroup of a pod, as the runtime wants it for cgroup_parent.
func (t *Tree) Path(pod *corev1.Pod) string {
	if t == nil {
		return ""
	}
	return path.Join(t.class(podlife.QOS(pod)), "pod"+string(pod.UID))
}

func (t *Tree) class(q corev1.PodQOSClass) string {
	switch q {
	case corev1.PodQOSGuaranteed:
		return t.root
	case corev1.PodQOSBurstable:
		return path.Join(t.root, "burstable")
	}
	return path.Join(t.root, "besteffort")
}

// Ensure makes the pod's cgroup with its limits and returns its path. It may be
// called again for a pod that has one.
func (t *Tree) Ensure(pod *corev1.Pod) (string, error) {
	if t == nil {
		return "", nil
	}
	if err := t.prepare(); err != nil {
		return "", err
	}
	if err := t.weigh(pod); err != nil {
		return "", err
	}
	p := t.Path(pod)
	if err := apply(p, podResources(pod)); err != nil {
		return "", fmt.Errorf("cgroup %s of pod %s/%s: %w", p, pod.Namespace, pod.Name, err)
	}
	return p, nil
}

// Remove removes the cgroup of a pod, whichever class it is in, and kills what
// still lives there: the runtime, killed at a bad moment, may have forgotten a
// process. The pod's containers must have been stopped. A pod without a cgroup is fine.
func (t *Tree) Remove(uid types.UID) error {
	if t == nil {
		return nil
	}
	var errs []error
	for _, class := range classes {
		p := path.Join(t.class(class), "pod"+string(uid))
		dirs := hostDirs(p)
		for _, dir := range dirs {
			if err := killAll(dir); err != nil {
				errs = append(errs, err)
			}
		}
		for _, dir := range dirs {
			if err := ocgroups.RemovePath(dir); err != nil {
				errs = append(errs, fmt.Errorf("remove cgroup %s: %w", dir, err))
			}
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, weighed := t.burstable[uid]; weighed && len(errs) == 0 {
		delete(t.burstable, uid)
		errs = append(errs, t.setBurstable())
	}
	return errors.Join(errs...)
}

// Strays are the IDs of containers and sandboxes that have processes in the pod's
// cgroup and are not known. The runtime forgets one when it is killed itself between
// starting it and noting that it did.
func (t *Tree) Strays(pod *corev1.Pod, known func(id string) bool) []string {
	if t == nil {
		return nil
	}
	dirs := hostDirs(t.Path(pod))
	if len(dirs) == 0 {
		return nil
	}
	var ids []string
	entries, _ := os.ReadDir(dirs[0]) // a process is in all hierarchies, so one will do
	for _, e := range entries {
		if !e.IsDir() || !isContainerID(e.Name()) || known(e.Name()) {
			continue
		}
		if pids, err := ocgroups.GetAllPids(filepath.Join(dirs[0], e.Name())); err == nil && len(pids) > 0 {
			ids = append(ids, e.Name())
		}
	}
	return ids
}

// Kill kills the processes of one container or sandbox of the pod, and the shim
// that would wait for them for ever.
func (t *Tree) Kill(pod *corev1.Pod, id string) error {
	if t == nil {
		return nil
	}
	dirs := hostDirs(path.Join(t.Path(pod), id))
	for _, dir := range dirs {
		pids, _ := ocgroups.GetAllPids(dir)
		for _, pid := range pids {
			if shim, ok := shimOf(pid, id); ok {
				_ = unix.Kill(shim, unix.SIGKILL) // best effort: it does no harm but use memory
			}
		}
	}
	for _, dir := range dirs {
		if err := killAll(dir); err != nil {
			return err
		}
	}
	return nil
}

// shimOf is the process's parent, if that is containerd's shim of this very container.
func shimOf(pid int, id string) (int, bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false
	}
	// PID (COMM) STATE PPID …; COMM may contain anything, parentheses included.
	fields := strings.Fields(string(stat[strings.LastIndex(string(stat), ")")+1:]))
	if len(fields) < 2 {
		return 0, false
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil || parent <= 1 {
		return 0, false
	}
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", parent))
	return parent, err == nil && strings.Contains(string(args), "containerd-shim") && strings.Contains(string(args), "\x00-id\x00"+id+"\x00")
}

// isContainerID recognizes the folders that the runtime makes.
func isContainerID(name string) bool {
	return len(name) == 64 && strings.Trim(name, "0123456789abcdef") == ""
}

// killAll kills every process in a cgroup and below, until none is left. New ones
// that they fork meanwhile are met in the next round.
func killAll(dir string) error {
	for round := 0; ; round++ {
		pids, err := ocgroups.GetAllPids(dir)
		if errors.Is(err, os.ErrNotExist) || err == nil && len(pids) == 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("processes of cgroup %s: %w", dir, err)
		}
		if round == 50 {
			return fmt.Errorf("processes %v of cgroup %s do not end, although killed", pids, dir)
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL) // it may have ended by itself
		}
		time.Sleep(time.Duration(min(round+1, 20)) * time.Millisecond)
	}
}

var classes = []corev1.PodQOSClass{corev1.PodQOSGuaranteed, corev1.PodQOSBurstable, corev1.PodQOSBestEffort}

// Pods are the UIDs of the pods that have a cgroup.
func (t *Tree) Pods() []types.UID {
	if t == nil {
		return nil
	}
	seen := map[types.UID]bool{}
	var uids []types.UID
	for _, class := range classes {
		for _, dir := range hostDirs(t.class(class)) {
			entries, _ := os.ReadDir(dir)
			for _, e := range entries {
				uid, ok := strings.CutPrefix(e.Name(), "pod")
				if ok && e.IsDir() && !seen[types.UID(uid)] {
					seen[types.UID(uid)] = true
					uids = append(uids, types.UID(uid))
				}
			}
		}
	}
	return uids
}

// Destroy removes the whole tree. It fails while processes live there.
func (t *Tree) Destroy() error {
	if t == nil {
		return nil
	}
	var errs []error
	for _, dir := range hostDirs(t.root) {
		errs = append(errs, ocgroups.RemovePath(dir))
	}
	return errors.Join(errs...)
}

// prepare makes the parents once.
func (t *Tree) prepare() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.prepared {
		return nil
	}
	if err := apply(t.root, &ocgroups.Resources{SkipDevices: true}); err != nil {
		return fmt.Errorf("cgroup %s of this node: %w", t.root, err)
	}
	if err := apply(t.root, t.limits.resources()); err != nil {
		// What runs already may be above a new limit. That is no reason to run nothing else.
		klog.ErrorS(err, "What is reserved for the system cannot be kept from the pods", "cgroup", t.root)
	}
	if err := apply(t.class(corev1.PodQOSBestEffort), shares(minShares)); err != nil {
		return fmt.Errorf("cgroup of best-effort pods: %w", err)
	}
	if err := t.setBurstable(); err != nil {
		return err
	}
	t.prepared = true
	return nil
}

// weigh counts a burstable pod's CPU request into the weight of their parent.
func (t *Tree) weigh(pod *corev1.Pod) error {
	if podlife.QOS(pod) != corev1.PodQOSBurstable {
		return nil
	}
	cpu := podlife.Request(pod, corev1.ResourceCPU)
	t.mu.Lock()
	defer t.mu.Unlock()
	if old, known := t.burstable[pod.UID]; known && old == cpu.MilliValue() {
		return nil
	}
	t.burstable[pod.UID] = cpu.MilliValue()
	return t.setBurstable()
}

func (t *Tree) setBurstable() error {
	var sum int64
	for _, milli := range t.burstable {
		sum += milli
	}
	if err := apply(t.class(corev1.PodQOSBurstable), shares(Shares(sum))); err != nil {
		return fmt.Errorf("cgroup of burstable pods: %w", err)
	}
	return nil
}

// apply makes a cgroup and sets its limits.
func apply(p string, r *ocgroups.Resources) error {
	m, err := manager.New(&ocgroups.Cgroup{Path: p, Resources: r})
	if err != nil {
		return err
	}
	if err := m.Apply(-1); err != nil { // -1: make the folders, move no process
		return err
	}
	return m.Set(r)
}

// hostDirs are the folders of a cgroup: one on v2, one a controller on v1.
func hostDirs(p string) []string {
	const mount = "/sys/fs/cgroup"
	if ocgroups.IsCgroup2UnifiedMode() {
		return existing(filepath.Join(mount, p))
	}
	entries, _ := os.ReadDir(mount)
	var dirs []string
	for _, e := range entries {
		dirs = append(dirs, existing(filepath.Join(mount, e.Name(), p))...)
	}
	return dirs
}

func existing(dir string) []string {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return []string{dir}
	}
	return nil
}
