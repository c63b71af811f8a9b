package cgroups

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Grow gives a pod's cgroup at least its limits: those that are to sink stay until
// Ensure. So its containers can be changed in between, whichever way each goes.
func (t *Tree) Grow(pod *corev1.Pod) error {
	if t == nil {
		return nil
	}
	if err := t.weigh(pod); err != nil {
		return err
	}
	p, r := t.Path(pod), podResources(pod)
	if has, ok := number(p, "cpu.cfs_quota_us", "cpu.max"); !ok || r.CpuQuota <= has {
		r.CpuQuota, r.CpuPeriod = 0, 0 // none so far, or more: it stays
	}
	if has, ok := number(p, "memory.limit_in_bytes", "memory.max"); !ok || r.Memory <= has {
		r.Memory = 0
	}
	if err := apply(p, r); err != nil {
		return fmt.Errorf("cgroup %s of pod %s/%s: %w", p, pod.Namespace, pod.Name, err)
	}
	return nil
}

// MemoryUsage is what a container of the pod uses, in bytes.
func (t *Tree) MemoryUsage(pod *corev1.Pod, id string) (int64, bool) {
	if t == nil {
		return 0, false
	}
	return number(path.Join(t.Path(pod), id), "memory.usage_in_bytes", "memory.current")
}

// BelowUsage tells whether the pod's memory limit is lower than what it had and than
// what the pod uses.
func (t *Tree) BelowUsage(pod *corev1.Pod) (limit, used int64, below bool) {
	if t == nil {
		return 0, 0, false
	}
	p := t.Path(pod)
	limit = podResources(pod).Memory
	has, limited := number(p, "memory.limit_in_bytes", "memory.max")
	used, ok := number(p, "memory.usage_in_bytes", "memory.current")
	return limit, used, ok && limit > 0 && used >= limit && (!limited || limit < has)
}

// number reads the first number of a cgroup's file, which has one name on v1 and
// another on v2; false if it is not there, or says that there is no limit.
func number(p string, names ...string) (int64, bool) {
	for _, dir := range hostDirs(p) {
		for _, name := range names {
			content, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				continue
			}
			first, _, _ := strings.Cut(strings.TrimSpace(string(content)), " ")
			n, err := strconv.ParseInt(first, 10, 64)
			return n, err == nil && n >= 0
		}
	}
	return 0, false
}
