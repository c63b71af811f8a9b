package node

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/component-base/version"
)

// podsPerNode is the kubelet's default; a /24 pod range has room for twice as many.
const podsPerNode = 110

// machine reads facts about this computer from the files below root ("/", or a test's folder).
type machine struct {
	root string
	disk string // a path on the file system that pods write to
}

// capacity is all the machine has.
func (m machine) capacity() (corev1.ResourceList, error) {
	mem, err := m.meminfo()
	if err != nil {
		return nil, err
	}
	disk, err := m.diskUsage()
	if err != nil {
		return nil, err
	}
	list := corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(int64(m.cpus()), resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(int64(mem["MemTotal"]), resource.BinarySI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(int64(disk.total), resource.BinarySI),
		corev1.ResourcePods:             *resource.NewQuantity(podsPerNode, resource.DecimalSI),
	}
	for name, quantity := range m.hugepages() {
		list[name] = quantity
	}
	return list, nil
}

// allocatable is what pods may ask for: the capacity less what the node keeps so that pressure is
// reported before the machine is stuck (the kubelet's default eviction thresholds).
func allocatable(capacity corev1.ResourceList) corev1.ResourceList {
	list := capacity.DeepCopy()
	memory := list[corev1.ResourceMemory]
	memory.Sub(*resource.NewQuantity(memoryPressureBytes, resource.BinarySI))
	for name, quantity := range list {
		if strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix) {
			memory.Sub(quantity)
		}
	}
	if memory.Sign() < 0 {
		memory.Set(0)
	}
	list[corev1.ResourceMemory] = memory
	storage := list[corev1.ResourceEphemeralStorage]
	storage.Set(storage.Value() - storage.Value()/100*diskPressurePercent)
	list[corev1.ResourceEphemeralStorage] = storage
	return list
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

// meminfo returns /proc/meminfo in bytes.
func (m machine) meminfo() (map[string]uint64, error) {
	data, err := os.ReadFile(m.path("proc/meminfo"))
	if err != nil {
		return nil, fmt.Errorf("memory of this machine: %w", err)
	}
	info := map[string]uint64{}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		n, err := strconv.ParseUint(fields[1], 10, 64)
		if err != nil {
			continue
		}
		if len(fields) > 2 && fields[2] == "kB" {
			n <<= 10
		}
		info[strings.TrimSuffix(fields[0], ":")] = n
	}
	if info["MemTotal"] == 0 {
		return nil, fmt.Errorf("memory of this machine: no MemTotal in %s", m.path("proc/meminfo"))
	}
	return info, nil
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

// usage is room on a file system.
type usage struct{ total, free, inodes, inodesFree uint64 }

func (m machine) diskUsage() (usage, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(m.disk, &st); err != nil {
		return usage{}, fmt.Errorf("room on the file system of %s: %w", m.disk, err)
	}
	block := uint64(st.Bsize)
	return usage{total: st.Blocks * block, free: st.Bavail * block, inodes: st.Files, inodesFree: st.Ffree}, nil
}

// processes returns how many processes and threads there are, and how many there may be.
func (m machine) processes() (running, limit uint64, err error) {
	load := strings.Fields(m.text("proc/loadavg"))
	if len(load) < 4 {
		return 0, 0, fmt.Errorf("number of processes: %s: unknown form", m.path("proc/loadavg"))
	}
	_, total, _ := strings.Cut(load[3], "/")
	if running, err = strconv.ParseUint(total, 10, 64); err != nil {
		return 0, 0, fmt.Errorf("number of processes: %s: %w", m.path("proc/loadavg"), err)
	}
	for _, file := range []string{"proc/sys/kernel/pid_max", "proc/sys/kernel/threads-max"} {
		n, err := strconv.ParseUint(m.text(file), 10, 64)
		if err == nil && (limit == 0 || n < limit) {
			limit = n
		}
	}
	return running, limit, nil
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
	if mem, err := m.meminfo(); err == nil && mem["SwapTotal"] > 0 {
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
