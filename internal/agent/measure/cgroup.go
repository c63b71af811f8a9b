package measure

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/cgroups/fscommon"
)

// Memory is what a cgroup and all below it use of memory.
type Memory struct {
	// Usage is everything charged, page cache included.
	Usage uint64
	// WorkingSet is Usage less the inactive file cache; eviction and limits go by it.
	WorkingSet uint64
	// RSS is anonymous memory.
	RSS uint64
	// Swap is what was swapped out.
	Swap uint64
	// Limit is the cgroup's own; 0 for none.
	Limit uint64
	// PageFaults and MajorPageFaults were counted since the cgroup was made.
	PageFaults, MajorPageFaults uint64
}

// Cgroup is what the processes of a cgroup and of all below it use.
type Cgroup struct {
	// CPU was used since the cgroup was made.
	CPU    time.Duration
	Memory Memory
	// Processes counts processes and threads; 0 where the controller is missing.
	Processes uint64
}

// Cgroup measures the cgroup at path, such as "/everynode-NODE/burstable/podUID". A cgroup that is
// not there is an fs.ErrNotExist.
func (m *Machine) Cgroup(path string) (Cgroup, error) {
	var c Cgroup
	var err error
	if c.CPU, err = m.cgroupCPU(path); err != nil {
		return Cgroup{}, err
	}
	if c.Memory, err = m.cgroupMemory(path); err != nil {
		return Cgroup{}, err
	}
	c.Processes, _ = m.number(m.cgroupDir("pids", path), "pids.current")
	return c, nil
}

// cgroupDir is where the controller has its files of a cgroup.
func (m *Machine) cgroupDir(controller, path string) string {
	if m.unified {
		controller = ""
	}
	return filepath.Join(m.path("sys/fs/cgroup"), controller, path)
}

func (m *Machine) cgroupCPU(path string) (time.Duration, error) {
	if !m.unified {
		ns, err := m.number(m.cgroupDir("cpuacct", path), "cpuacct.usage")
		return time.Duration(ns), err
	}
	var used time.Duration
	err := keyValues(filepath.Join(m.cgroupDir("cpu", path), "cpu.stat"), func(key string, value uint64) {
		if key == "usage_usec" {
			used = time.Duration(value) * time.Microsecond
		}
	})
	return used, err
}

func (m *Machine) cgroupMemory(path string) (Memory, error) {
	dir := m.cgroupDir("memory", path)
	mem, inactive, err := m.memoryStat(dir)
	if err != nil {
		return Memory{}, err
	}
	usage, limit := "memory.usage_in_bytes", "memory.limit_in_bytes"
	if m.unified {
		usage, limit = "memory.current", "memory.max"
		mem.Swap, _ = m.number(dir, "memory.swap.current") // none without swap accounting
	}
	if mem.Usage, err = m.number(dir, usage); err != nil {
		return Memory{}, err
	}
	if mem.Limit, err = m.number(dir, limit); err != nil {
		return Memory{}, err
	}
	if mem.Limit >= noLimit {
		mem.Limit = 0
	}
	mem.WorkingSet = mem.Usage - min(inactive, mem.Usage)
	return mem, nil
}

// noLimit and above it stand for none: v1 writes the largest multiple of a page, v2 "max".
const noLimit = math.MaxInt64 - 1<<20

// memoryStat reads a cgroup's memory.stat, and how much of its file cache is inactive.
func (m *Machine) memoryStat(dir string) (mem Memory, inactive uint64, err error) {
	names := map[string]*uint64{
		"total_inactive_file": &inactive, "total_rss": &mem.RSS, "total_swap": &mem.Swap,
		"total_pgfault": &mem.PageFaults, "total_pgmajfault": &mem.MajorPageFaults,
	}
	if m.unified {
		names = map[string]*uint64{
			"inactive_file": &inactive, "anon": &mem.RSS, "pgfault": &mem.PageFaults, "pgmajfault": &mem.MajorPageFaults,
		}
	}
	err = keyValues(filepath.Join(dir, "memory.stat"), func(key string, value uint64) {
		if into := names[key]; into != nil {
			*into = value
		}
	})
	return mem, inactive, err
}

// keyValues calls each with every line of a flat-keyed cgroup file.
func keyValues(file string, each func(key string, value uint64)) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	for line := range strings.SplitSeq(strings.TrimSpace(string(data)), "\n") {
		key, value, err := fscommon.ParseKeyValue(line)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		each(key, value)
	}
	return nil
}

// number reads a file of one number; "max" is the largest.
func (m *Machine) number(dir, file string) (uint64, error) {
	data, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0, err
	}
	text := strings.TrimSpace(string(data))
	if text == "max" {
		return math.MaxUint64, nil
	}
	n, err := fscommon.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", filepath.Join(dir, file), err)
	}
	return n, nil
}

// CgroupProcess is a process of the cgroup at path itself, not of those below it; 0 when there is none.
func (m *Machine) CgroupProcess(path string) int {
	// v1 has the same processes in each of its hierarchies.
	data, err := os.ReadFile(filepath.Join(m.cgroupDir("memory", path), "cgroup.procs"))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(data), "\n")
	pid, _ := strconv.Atoi(first)
	return pid
}
