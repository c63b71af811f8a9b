package node

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/component-base/version"

	"github.com/everynode/everynode/internal/agent/measure"
)

// podsPerNode is the kubelet's default; a /24 pod range has room for twice as many.
const podsPerNode = 110

// machine reads facts about this computer from the files below root ("/", or a test's folder).
type machine struct {
	*measure.Machine
	root string
	disk string // a path on the file system that pods write to
}

func newMachine(root, disk string) machine {
	return machine{Machine: measure.New(root), root: root, disk: disk}
}

// capacity is all the machine has.
func (m machine) capacity() (corev1.ResourceList, error) {
	mem, err := m.Meminfo()
	if err != nil {
		return nil, err
	}
	disk, err := m.FileSystem(m.disk)
	if err != nil {
		return nil, err
	}
	list := corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(int64(m.cpus()), resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(int64(mem["MemTotal"]), resource.BinarySI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(int64(disk.Capacity), resource.BinarySI),
		corev1.ResourcePods:             *resource.NewQuantity(podsPerNode, resource.DecimalSI),
	}
	for name, quantity := range m.hugepages() {
		list[name] = quantity
	}
	return list, nil
}

// cpus counts the processors that are on; a cgroup or affinity of this process does not matter,
// because containers are not bound by it.
func (m machine) cpus() int {
	n, err := countRanges(m.text("sys/devices/system/cpu/online"))
	if err != nil || n == 0 {
		return runtime.NumCPU()
	}
	return n
}

// countRanges counts the members of a kernel list such as "0-3,8".
func countRanges(list string) (int, error) {
	n := 0
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		a, err := strconv.Atoi(first)
		if err != nil {
			return 0, fmt.Errorf("list %q: %w", list, err)
		}
		b := a
		if isRange {
			if b, err = strconv.Atoi(last); err != nil {
				return 0, fmt.Errorf("list %q: %w", list, err)
			}
		}
		n += b - a + 1
	}
	return n, nil
}

func (m machine) hugepages() corev1.ResourceList {
	list := corev1.ResourceList{}
	dirs, _ := filepath.Glob(m.path("sys/kernel/mm/hugepages/hugepages-*kB"))
	for _, dir := range dirs {
		size := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(dir), "hugepages-"), "kB")
		kib, err := strconv.ParseInt(size, 10, 64)
		if err != nil {
			continue
		}
		pages, err := os.ReadFile(filepath.Join(dir, "nr_hugepages"))
		if err != nil {
			continue
		}
		count, err := strconv.ParseInt(strings.TrimSpace(string(pages)), 10, 64)
		if err != nil {
			continue
		}
		name := corev1.ResourceHugePagesPrefix + resource.NewQuantity(kib<<10, resource.BinarySI).String()
		list[corev1.ResourceName(name)] = *resource.NewQuantity(count*kib<<10, resource.BinarySI)
	}
	return list
}

// info is what kubectl shows under "System Info"; runtime is NAME://VERSION of the container runtime.
func (m machine) info(runtimeVersion string) corev1.NodeSystemInfo {
	machineID := m.text("etc/machine-id")
	systemUUID := m.text("sys/class/dmi/id/product_uuid")
	if systemUUID == "" {
		systemUUID = machineID
	}
	var swap *corev1.NodeSwapStatus
	// A capacity of 0 would make the whole Node invalid.
	if mem, err := m.Meminfo(); err == nil && mem["SwapTotal"] > 0 {
		bytes := int64(mem["SwapTotal"])
		swap = &corev1.NodeSwapStatus{Capacity: &bytes}
	}
	return corev1.NodeSystemInfo{
		MachineID:               machineID,
		SystemUUID:              systemUUID,
		BootID:                  m.text("proc/sys/kernel/random/boot_id"),
		KernelVersion:           m.text("proc/sys/kernel/osrelease"),
		OSImage:                 m.osImage(),
		ContainerRuntimeVersion: runtimeVersion,
		KubeletVersion:          version.Get().GitVersion,
		OperatingSystem:         runtime.GOOS,
		Architecture:            runtime.GOARCH,
		Swap:                    swap,
	}
}

func (m machine) osImage() string {
	for _, file := range []string{"etc/os-release", "usr/lib/os-release"} {
		for line := range strings.SplitSeq(m.text(file), "\n") {
			if value, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
				return strings.Trim(value, `"'`)
			}
		}
	}
	return "Linux"
}

func (m machine) path(name string) string { return filepath.Join(m.root, name) }

// text is a small file's content without the space around it; "" when it cannot be read.
func (m machine) text(name string) string {
	data, err := os.ReadFile(m.path(name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
