package measure

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/cgroups/fscommon"
)

// Machine is this computer, or a recorded one below another root. It is safe for concurrent use.
type Machine struct {
	root    string
	unified bool
}

// New returns the machine whose /proc and /sys lie below root, "/" for this one.
func New(root string) *Machine {
	m := &Machine{root: root}
	_, err := os.Stat(m.path("sys/fs/cgroup/cgroup.controllers"))
	m.unified = err == nil
	return m
}

// CPU is the processor time used since the machine started.
func (m *Machine) CPU() (time.Duration, error) { return m.cgroupCPU("/") }

// NodeMemory is the memory of the machine as a whole.
type NodeMemory struct {
	Memory
	// Capacity is all there is.
	Capacity uint64
	// Available is what could be had without swapping: Capacity less WorkingSet, as the kubelet
	// computes it.
	Available uint64
}

// Memory measures the machine as a whole. Where the root cgroup cannot be read, the kernel's own
// estimate of what is available is taken.
func (m *Machine) Memory() (NodeMemory, error) {
	info, err := m.Meminfo()
	if err != nil {
		return NodeMemory{}, err
	}
	n := NodeMemory{Capacity: info["MemTotal"]}
	if n.Memory, err = m.rootMemory(info); err != nil {
		used := n.Capacity - min(info["MemAvailable"], n.Capacity)
		n.Memory = Memory{Usage: n.Capacity - min(info["MemFree"], n.Capacity), WorkingSet: used, RSS: info["AnonPages"]}
	}
	n.Available = n.Capacity - min(n.WorkingSet, n.Capacity)
	return n, nil
}

// rootMemory is the root cgroup's. On v2 that has statistics, but neither a usage nor a limit.
func (m *Machine) rootMemory(info map[string]uint64) (Memory, error) {
	if !m.unified {
		return m.cgroupMemory("/")
	}
	mem, inactive, err := m.memoryStat(m.path("sys/fs/cgroup"))
	if err != nil {
		return Memory{}, err
	}
	mem.Usage = info["MemTotal"] - min(info["MemFree"], info["MemTotal"])
	mem.Swap = info["SwapTotal"] - min(info["SwapFree"], info["SwapTotal"])
	mem.WorkingSet = mem.Usage - min(inactive, mem.Usage)
	return mem, nil
}

// Meminfo is /proc/meminfo with sizes in bytes.
func (m *Machine) Meminfo() (map[string]uint64, error) {
	data, err := os.ReadFile(m.path("proc/meminfo"))
	if err != nil {
		return nil, fmt.Errorf("memory of this machine: %w", err)
	}
	info := map[string]uint64{}
	for line := range strings.SplitSeq(string(data), "\n") {
		fields := strings.Fields(line)
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

// Processes counts the processes and threads there are, and says how many there may be.
func (m *Machine) Processes() (running, limit uint64, err error) {
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

// Started is when the machine was, to the second.
func (m *Machine) Started() (time.Time, error) {
	for line := range strings.SplitSeq(m.text("proc/stat"), "\n") {
		if key, seconds, err := fscommon.ParseKeyValue(line); err == nil && key == "btime" {
			return time.Unix(int64(seconds), 0), nil
		}
	}
	return time.Time{}, fmt.Errorf("start of this machine: no btime in %s: %w", m.path("proc/stat"), fs.ErrNotExist)
}

func (m *Machine) path(name string) string { return filepath.Join(m.root, name) }

// text is a small file's content without the space around it; "" when it cannot be read.
func (m *Machine) text(name string) string {
	data, err := os.ReadFile(m.path(name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
