package eviction

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Signal names something that can run short.
type Signal string

// The signals, as configuration files have them.
const (
	MemoryAvailable   Signal = "memory.available"
	NodeFsAvailable   Signal = "nodefs.available"
	NodeFsInodesFree  Signal = "nodefs.inodesFree"
	ImageFsAvailable  Signal = "imagefs.available"
	ImageFsInodesFree Signal = "imagefs.inodesFree"
	PIDAvailable      Signal = "pid.available"
	// AllocatableMemory is what is left to pods where all of them together have a limit. Its
	// thresholds are those of MemoryAvailable.
	AllocatableMemory Signal = "allocatableMemory.available"
)

// configurable are the signals that a configuration may name.
var configurable = []Signal{MemoryAvailable, NodeFsAvailable, NodeFsInodesFree, ImageFsAvailable, ImageFsInodesFree, PIDAvailable}

// Resources that are no resources of the API but appear in messages.
const (
	inodes corev1.ResourceName = "inodes"
	pids   corev1.ResourceName = "pids"
)

// Resource is what a signal is about, as messages name it.
func (s Signal) Resource() corev1.ResourceName {
	switch s {
	case MemoryAvailable, AllocatableMemory:
		return corev1.ResourceMemory
	case NodeFsAvailable, ImageFsAvailable:
		return corev1.ResourceEphemeralStorage
	case NodeFsInodesFree, ImageFsInodesFree:
		return inodes
	}
	return pids
}

// Condition is the node condition that a signal leads to.
func (s Signal) Condition() corev1.NodeConditionType {
	switch s.Resource() {
	case corev1.ResourceMemory:
		return corev1.NodeMemoryPressure
	case pids:
		return corev1.NodePIDPressure
	}
	return corev1.NodeDiskPressure
}

// Disk tells that removing images and ended containers may help.
func (s Signal) Disk() bool { return s.Condition() == corev1.NodeDiskPressure }

// rank orders signals by who is helped first: memory kills at once, a disk does not.
func (s Signal) rank() int { return slices.Index(order, s) }

var order = []Signal{MemoryAvailable, AllocatableMemory, PIDAvailable, NodeFsAvailable, ImageFsAvailable, NodeFsInodesFree, ImageFsInodesFree}

// Observation is what was measured of a signal, in bytes or numbers.
type Observation struct{ Available, Capacity int64 }

// Observations by signal. A signal that could not be measured is missing, and meets no threshold.
type Observations map[Signal]Observation

// quantity is an amount as messages show it.
func (s Signal) quantity(amount int64) *resource.Quantity {
	switch s.Resource() {
	case inodes, pids:
		return resource.NewQuantity(amount, resource.DecimalSI)
	}
	return resource.NewQuantity(amount, resource.BinarySI)
}
