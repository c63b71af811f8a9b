package pods

import (
	"fmt"
	"path/filepath"
	"slices"
	"sort"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/everynode/everynode/internal/agent/logs"
	"github.com/everynode/everynode/internal/agent/volumes"
	"github.com/everynode/everynode/internal/decide/podlife"
)

// view is a pod as others may see it. Nobody changes it after it is shown.
type view struct {
	pod        *corev1.Pod
	sandboxes  []podlife.Sandbox
	containers []podlife.Container
	// mirror is the UID under which the API has a static pod, if it has it.
	mirror types.UID
}

// is tells whether a caller who names this UID, or none, means this pod.
func (v *view) is(uid types.UID) bool { return uid == "" || uid == v.pod.UID || uid == v.mirror }

// show publishes the facts with the status last decided.
func (w *worker) show(status *corev1.PodStatus) {
	w.shown.Store(&view{
		pod:        withStatusOf(w.facts.Pod, status),
		sandboxes:  slices.Clone(w.facts.Sandboxes),
		containers: slices.Clone(w.facts.Containers),
		mirror:     w.mirror.uid(),
	})
}

// Pods are the pods of this node, with the status last decided, by namespace and
// name. They are shared: callers must not change them.
func (m *Manager) Pods() []*corev1.Pod {
	var list []*corev1.Pod
	for _, w := range m.all() {
		list = append(list, w.shown.Load().pod)
	}
	sort.Slice(list, func(i, j int) bool {
		a, b := list[i], list[j]
		if a.Namespace != b.Namespace {
			return a.Namespace < b.Namespace
		}
		if a.Name != b.Name {
			return a.Name < b.Name
		}
		return a.UID < b.UID
	})
	return list
}

// Cgroup is the path of a pod's cgroup, below which those of its containers are.
func (m *Manager) Cgroup(pod *corev1.Pod) string { return m.cgroups.Path(pod) }

// LogDir is the folder of a pod's logs: one folder in it for each container.
func (m *Manager) LogDir(pod *corev1.Pod) string {
	return m.podLogDir(pod.Namespace, pod.Name, pod.UID)
}

// NotFoundError tells that this node does not have what was asked for.
type NotFoundError struct{ What string }

// Error says what is not here.
func (e *NotFoundError) Error() string { return e.What + " not found on this node" }

// find returns the pod of that name; an empty uid matches any, the newest first.
func (m *Manager) find(ns, name string, uid types.UID) (*view, error) {
	var found *view
	for _, w := range m.all() {
		v := w.shown.Load()
		p := v.pod
		if p.Namespace != ns || p.Name != name || !v.is(uid) {
			continue
		}
		if found == nil || found.pod.CreationTimestamp.Before(&p.CreationTimestamp) {
			found = v
		}
	}
	if found == nil {
		return nil, &NotFoundError{fmt.Sprintf("pod %s/%s", ns, name)}
	}
	return found, nil
}

// attempts of a container, the newest first.
func (v *view) attempts(name string) []podlife.Container {
	var list []podlife.Container
	for _, c := range v.containers {
		if c.Name == name {
			list = append(list, c)
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Attempt > list[j].Attempt })
	return list
}

// Container is the ID of the newest container of that name, which may have ended.
// An empty uid matches any pod of the name.
func (m *Manager) Container(ns, pod string, uid types.UID, container string) (id string, err error) {
	v, err := m.find(ns, pod, uid)
	if err != nil {
		return "", err
	}
	if list := v.attempts(container); len(list) > 0 {
		return list[0].ID, nil
	}
	return "", v.missing(container)
}

// missing says why the container has no ID yet.
func (v *view) missing(container string) error {
	for _, s := range allStatuses(&v.pod.Status) {
		if s.Name == container && s.State.Waiting != nil {
			return fmt.Errorf("container %q in pod %q is waiting to start: %s", container, v.pod.Name, s.State.Waiting.Reason)
		}
	}
	return &NotFoundError{fmt.Sprintf("container %s in pod %s/%s", container, v.pod.Namespace, v.pod.Name)}
}

// LogFile is the log of the newest container of that name, or of the one before it.
func (m *Manager) LogFile(ns, pod string, uid types.UID, container string, previous bool) (path, id string, err error) {
	v, err := m.find(ns, pod, uid)
	if err != nil {
		return "", "", err
	}
	var list []podlife.Container
	for _, c := range v.attempts(container) {
		if c.State != podlife.Created {
			list = append(list, c)
		}
	}
	switch {
	case len(list) == 0:
		return "", "", v.missing(container)
	case previous && list[0].State == podlife.Exited && v.waits(container): // it is itself the one before the next
	case previous && len(list) == 1:
		return "", "", fmt.Errorf("previous terminated container %q in pod %q not found", container, pod)
	case previous:
		list = list[1:]
	}
	return filepath.Join(m.podLogDir(v.pod.Namespace, v.pod.Name, v.pod.UID), logPath(container, list[0].Attempt)), list[0].ID, nil
}

// RunningLogs are the logs of the containers that run now.
func (m *Manager) RunningLogs() []logs.Log {
	var list []logs.Log
	for _, w := range m.all() {
		v := w.shown.Load()
		dir := m.podLogDir(v.pod.Namespace, v.pod.Name, v.pod.UID)
		for _, c := range v.containers {
			if c.State == podlife.Running {
				list = append(list, logs.Log{ContainerID: c.ID, Path: filepath.Join(dir, logPath(c.Name, c.Attempt))})
			}
		}
	}
	return list
}

// WantedImages are the images, as their specs name them, of the pods that have not ended.
func (m *Manager) WantedImages() []string {
	var list []string
	for _, pod := range m.Pods() {
		if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		for _, c := range allContainers(pod) {
			list = append(list, c.Image)
		}
		for _, v := range volumes.ImageVolumes(pod) {
			list = append(list, v.Image.Reference)
		}
	}
	return list
}

// waits tells that the container is waiting to be restarted.
func (v *view) waits(container string) bool {
	for _, s := range allStatuses(&v.pod.Status) {
		if s.Name == container {
			return s.State.Waiting != nil
		}
	}
	return false
}

// Sandbox is the ID of the pod's ready sandbox.
func (m *Manager) Sandbox(ns, pod string, uid types.UID) (id string, err error) {
	v, err := m.find(ns, pod, uid)
	if err != nil {
		return "", err
	}
	best := podlife.Sandbox{}
	for _, s := range v.sandboxes {
		if s.Ready && (id == "" || s.Attempt > best.Attempt) {
			id, best = s.ID, s
		}
	}
	if id == "" {
		return "", fmt.Errorf("pod %s/%s has no running sandbox", ns, pod)
	}
	return id, nil
}
