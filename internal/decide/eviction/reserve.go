package eviction

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Allocatable is what pods may ask for: the capacity less what is reserved for others, and less what
// must stay available so that no pod is evicted because the node is used as it was meant to be.
// https://kubernetes.io/docs/tasks/administer-cluster/reserve-compute-resources/
func Allocatable(capacity, reserved corev1.ResourceList, thresholds []Threshold) corev1.ResourceList {
	list := less(capacity, reserved)
	for _, t := range thresholds {
		if !t.Hard() {
			continue
		}
		switch t.Signal {
		case MemoryAvailable:
			take(list, corev1.ResourceMemory, t.Below.of(amountOf(capacity, corev1.ResourceMemory)))
		case NodeFsAvailable:
			take(list, corev1.ResourceEphemeralStorage, t.Below.of(amountOf(capacity, corev1.ResourceEphemeralStorage)))
		}
	}
	for name := range capacity {
		if strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix) {
			take(list, corev1.ResourceMemory, amountOf(capacity, name))
		}
	}
	return list
}

// less is the capacity without what is reserved, and never negative.
func less(capacity, reserved corev1.ResourceList) corev1.ResourceList {
	list := capacity.DeepCopy()
	for name, q := range reserved {
		if left, has := list[name]; has {
			left.Sub(q)
			if left.Sign() < 0 {
				left = resource.Quantity{Format: left.Format}
			}
			list[name] = left
		}
	}
	return list
}

func amountOf(list corev1.ResourceList, name corev1.ResourceName) int64 {
	q := list[name]
	return q.Value()
}

func take(list corev1.ResourceList, name corev1.ResourceName, amount int64) {
	q, has := list[name]
	if !has {
		return
	}
	list[name] = *resource.NewQuantity(max(q.Value()-amount, 0), q.Format)
}
