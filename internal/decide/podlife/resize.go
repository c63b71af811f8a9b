package podlife

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Resources can be changed of a pod that runs:
// https://kubernetes.io/docs/tasks/configure-pod-container/resize-container-resources/
//
//	spec changes ─> the node agrees ─> Facts.Pod has the new resources, Facts.Resizing
//	             └> it does not: Facts.Resize says why; Facts.Pod keeps the old ones
//
// What the node has agreed to is the allocation. Running containers follow it by
// ResizePod, or by a restart where their resizePolicy asks for one.

// resizable are the resources of a running container that may change.
var resizable = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory}

// Changed lists the resources in which a container's spec differs from what it runs with.
func Changed(want corev1.ResourceRequirements, has corev1.ResourceRequirements) []corev1.ResourceName {
	var list []corev1.ResourceName
	for _, name := range resizable {
		if !same(want.Requests, has.Requests, name) || !same(want.Limits, has.Limits, name) {
			list = append(list, name)
		}
	}
	return list
}

func same(a, b corev1.ResourceList, name corev1.ResourceName) bool {
	x, y := a[name], b[name]
	return x.Cmp(y) == 0
}

// Effective are the resources that a container runs with: its own, and for limits that
// it has not, those of the pod as a whole.
func Effective(pod *corev1.PodSpec, c *corev1.Container) corev1.ResourceRequirements {
	if pod.Resources == nil {
		return c.Resources
	}
	r := *c.Resources.DeepCopy()
	for _, name := range resizable {
		limit, given := pod.Resources.Limits[name]
		if _, own := r.Limits[name]; given && !own {
			if r.Limits == nil {
				r.Limits = corev1.ResourceList{}
			}
			r.Limits[name] = limit
		}
	}
	return r
}

// RestartsFor tells whether a change of this resource restarts the container.
func RestartsFor(c *corev1.Container, name corev1.ResourceName) bool {
	return slices.ContainsFunc(c.ResizePolicy, func(p corev1.ContainerResizePolicy) bool {
		return p.ResourceName == name && p.RestartPolicy == corev1.RestartContainer
	})
}

// resize brings running containers and the pod's cgroup to the allocation.
func (d *decision) resize() {
	if !d.Resizing || d.sandbox == nil {
		return
	}
	waiting, inPlace := false, false
	for _, c := range d.specs() {
		obs, ok := d.newest(c.Name)
		if !ok || obs.State != Running || obs.Resources == nil {
			continue
		}
		changed := Changed(Effective(&d.Pod.Spec, c.Container), *obs.Resources)
		restart := slices.ContainsFunc(changed, func(name corev1.ResourceName) bool { return RestartsFor(c.Container, name) })
		switch {
		case restart && c.role != initial:
			waiting = true
			d.again(obs, d.specGrace(), true, AtOnce, fmt.Sprintf("Container %s resize requires restart", c.Name))
		case len(changed) > 0:
			inPlace = true
		}
	}
	if inPlace || !waiting {
		d.do(Step{Kind: ResizePod, Why: "the pod's resources have changed"})
	}
}

// resources are those that the container runs with, as its status shows them. What
// is not known of it stays as it was reported.
func (d *decision) resources(c spec, obs Container) *corev1.ResourceRequirements {
	r := c.Resources.DeepCopy()
	if obs.State != Running || obs.Resources == nil {
		return r
	}
	old, reported := statusOf(d.basis, c)
	if !reported || old.ContainerID != publicID(obs.ID) || old.Resources == nil {
		old = &corev1.ContainerStatus{Resources: r}
	}
	for _, name := range resizable {
		actual(r.Requests, obs.Resources.Requests, old.Resources.Requests, name)
		actual(r.Limits, obs.Resources.Limits, old.Resources.Limits, name)
	}
	return r
}

// podResources are those granted to the pod as a whole, if it asks for any, and those
// that its cgroup has: the new ones only when all has followed.
func (d *decision) podResources() (corev1.ResourceList, *corev1.ResourceRequirements) {
	asked := d.Pod.Spec.Resources
	if asked == nil || len(asked.Requests)+len(asked.Limits) == 0 || d.Rejected != nil {
		return nil, nil
	}
	if d.Resizing && d.basis.Resources != nil {
		return asked.Requests, d.basis.Resources
	}
	return asked.Requests, asked.DeepCopy()
}

func actual(to, has, reported corev1.ResourceList, name corev1.ResourceName) {
	if _, asked := to[name]; !asked {
		return
	}
	if q, known := has[name]; known {
		to[name] = q
	} else if q, known := reported[name]; known {
		to[name] = q
	}
}

// resizeConditions say how far a change of the pod's resources has come.
func (d *decision) resizeConditions() []corev1.PodCondition {
	var list []corev1.PodCondition
	if v := d.Resize; v != nil {
		list = append(list, corev1.PodCondition{Type: corev1.PodResizePending, Status: corev1.ConditionTrue, Reason: v.Reason, Message: v.Message})
	}
	if d.Resizing && d.why == "" {
		c := corev1.PodCondition{Type: corev1.PodResizeInProgress, Status: corev1.ConditionTrue}
		if f, failed := d.Failures[(Step{Kind: ResizePod}).Key()]; failed && f.Reason != "" {
			c.Reason, c.Message = corev1.PodReasonError, f.Message
		}
		list = append(list, c)
	}
	return list
}

// AdmitResize says why a pod cannot have the resources that it asks for now, or nil.
// Others are the other pods of the node that have not ended.
func AdmitResize(pod *corev1.Pod, others []*corev1.Pod, allocatable corev1.ResourceList) *Verdict {
	for _, name := range resizable {
		want, room := Request(pod, name), allocatable[name]
		if _, listed := allocatable[name]; listed && want.Cmp(room) > 0 {
			return &Verdict{corev1.PodReasonInfeasible, fmt.Sprintf("Node didn't have enough capacity: %s, requested: %d, capacity: %d", name, amount(name, want), amount(name, room))}
		}
	}
	if short := shortages(pod, others, allocatable, resizable); len(short) > 0 {
		return &Verdict{corev1.PodReasonDeferred, short[0].verdict().Message}
	}
	return nil
}

// Allocation is the resources that a node has granted to a pod: by container name,
// and for the pod as a whole.
type Allocation struct {
	Pod        *corev1.ResourceRequirements           `json:"pod,omitempty"`
	Containers map[string]corev1.ResourceRequirements `json:"containers"`
}

// AllocationOf is the allocation of a pod that gets all it asks for.
func AllocationOf(pod *corev1.Pod) Allocation {
	a := Allocation{Pod: pod.Spec.Resources, Containers: map[string]corev1.ResourceRequirements{}}
	for _, c := range withInit(pod) {
		a.Containers[c.Name] = c.Resources
	}
	return a
}

// Apply returns the pod with the resources of the allocation: pod itself, if it
// asks for nothing else.
func (a Allocation) Apply(pod *corev1.Pod) *corev1.Pod {
	out := pod
	copied := func() {
		if out == pod {
			out = pod.DeepCopy()
		}
	}
	if a.Pod != nil && pod.Spec.Resources != nil && len(Changed(*pod.Spec.Resources, *a.Pod)) > 0 {
		copied()
		out.Spec.Resources = merged(*pod.Spec.Resources, *a.Pod)
	}
	set := func(list []corev1.Container, in func() []corev1.Container) {
		for i := range list {
			has, ok := a.Containers[list[i].Name]
			if ok && len(Changed(list[i].Resources, has)) > 0 {
				copied()
				in()[i].Resources = *merged(list[i].Resources, has)
			}
		}
	}
	set(pod.Spec.InitContainers, func() []corev1.Container { return out.Spec.InitContainers })
	set(pod.Spec.Containers, func() []corev1.Container { return out.Spec.Containers })
	return out
}

// merged is r with the resizable resources of has.
func merged(r, has corev1.ResourceRequirements) *corev1.ResourceRequirements {
	out := r.DeepCopy()
	out.Requests, out.Limits = mergedList(out.Requests, has.Requests), mergedList(out.Limits, has.Limits)
	return out
}

func mergedList(to, from corev1.ResourceList) corev1.ResourceList {
	for _, name := range resizable {
		if q, ok := from[name]; ok {
			if to == nil {
				to = corev1.ResourceList{}
			}
			to[name] = q
		} else {
			delete(to, name)
		}
	}
	if len(to) == 0 {
		return nil
	}
	return to
}

// Grows tells whether the pod would ask for more than it has now.
func Grows(pod, has *corev1.Pod) bool {
	return slices.ContainsFunc(resizable, func(name corev1.ResourceName) bool {
		want, now := Request(pod, name), Request(has, name)
		return want.Cmp(now) > 0
	})
}
