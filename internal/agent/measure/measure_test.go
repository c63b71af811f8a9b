package measure

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The trees in testdata were recorded on machines with cgroup v1 and v2, and cut to what is read.
func machines() map[string]*Machine {
	return map[string]*Machine{"v1": New("testdata/v1"), "v2": New("testdata/v2")}
}

func TestCgroup(t *testing.T) {
	for version, want := range map[string]map[string]Cgroup{
		"v1": {
			"/n1/burstable/podu1": {CPU: 25729916, Processes: 2, Memory: Memory{
				Usage: 22929408, WorkingSet: 22929408 - 20979712, RSS: 147456, PageFaults: 2920, MajorPageFaults: 1,
			}},
			"/n1/burstable/podu1/aaa": {CPU: 29060742, Processes: 2, Memory: Memory{
				Usage: 22704128, WorkingSet: 22704128 - 20979712, RSS: 151552, Limit: 64 << 20, PageFaults: 3227, MajorPageFaults: 1,
			}},
		},
		"v2": {
			"/n1/burstable/podu1": {CPU: 25729 * time.Microsecond, Processes: 2, Memory: Memory{
				Usage: 22929408, WorkingSet: 22929408 - 20979712, RSS: 147456, Swap: 4096, PageFaults: 2920, MajorPageFaults: 1,
			}},
			"/n1/burstable/podu1/aaa": {CPU: 25729 * time.Microsecond, Processes: 2, Memory: Memory{
				Usage: 22929408, WorkingSet: 22929408 - 20979712, RSS: 147456, Swap: 4096, Limit: 64 << 20, PageFaults: 2920, MajorPageFaults: 1,
			}},
		},
	} {
		m := machines()[version]
		for path, want := range want {
			got, err := m.Cgroup(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s %s: %s", version, path, diff)
			}
		}
		if pid := m.CgroupProcess("/n1/burstable/podu1/aaa"); pid != 18713 {
			t.Errorf("%s: process %d, want 18713", version, pid)
		}
		if pid := m.CgroupProcess("/n1/burstable/podu1"); pid != 0 {
			t.Errorf("%s: process %d of a cgroup without", version, pid)
		}
		if _, err := m.Cgroup("/n1/podgone"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: a cgroup that is not there: %v", version, err)
		}
	}
}

func TestNode(t *testing.T) {
	const capacity = 24684084 << 10
	for version, want := range map[string]NodeMemory{
		"v1": {Capacity: capacity, Memory: Memory{
			Usage: 8215818240, WorkingSet: 8215818240 - 2629537792, RSS: 47509504, Swap: 8192, PageFaults: 403672435, MajorPageFaults: 116855,
		}},
		"v2": {Capacity: capacity, Memory: Memory{ // used is what is not free
			Usage: (24684084 - 15804488) << 10, WorkingSet: (24684084-15804488)<<10 - 2629537792, RSS: 899219456, Swap: 8192 << 10, PageFaults: 403672435, MajorPageFaults: 116855,
		}},
	} {
		want.Available = want.Capacity - want.WorkingSet
		m := machines()[version]
		got, err := m.Memory()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", version, diff)
		}
		running, limit, err := m.Processes()
		if err != nil || running != 345 || limit != 15000 {
			t.Errorf("%s: processes %d of %d, %v, want 345 of 15000", version, running, limit, err)
		}
		started, err := m.Started()
		if err != nil || started.Unix() != 1790000000 {
			t.Errorf("%s: started %v, %v", version, started, err)
		}
	}
	for version, want := range map[string]time.Duration{"v1": 14153665631717, "v2": 14091981359 * time.Microsecond} {
		if got, err := machines()[version].CPU(); err != nil || got != want {
			t.Errorf("%s: CPU %v, %v, want %v", version, got, err, want)
		}
	}
}

// Without a root cgroup, as in some containers, the kernel's estimate is what there is.
func TestMemoryWithoutCgroups(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "proc/meminfo"), "MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 600 kB\nAnonPages: 300 kB\n")
	got, err := New(root).Memory()
	want := NodeMemory{Capacity: 1000 << 10, Available: 600 << 10, Memory: Memory{Usage: 900 << 10, WorkingSet: 400 << 10, RSS: 300 << 10}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

// What cannot be read is said with the file's name, and never taken for a number.
func TestBadFiles(t *testing.T) {
	root := t.TempDir()
	m := New(root)
	if _, err := m.Memory(); err == nil || !strings.Contains(err.Error(), "meminfo") {
		t.Errorf("no meminfo: %v", err)
	}
	if _, _, err := m.Processes(); err == nil || !strings.Contains(err.Error(), "loadavg") {
		t.Errorf("no loadavg: %v", err)
	}
	for file, content := range map[string]string{"cpuacct.usage": "x\n", "memory.stat": "total_rss\n", "memory.usage_in_bytes": "\n"} {
		dir := filepath.Join(root, "sys/fs/cgroup")
		for good, content := range map[string]string{"cpuacct/c/cpuacct.usage": "1\n", "memory/c/memory.stat": "total_rss 1\n", "memory/c/memory.usage_in_bytes": "1\n", "memory/c/memory.limit_in_bytes": "1\n"} {
			write(t, filepath.Join(dir, good), content)
		}
		if _, err := m.Cgroup("/c"); err != nil {
			t.Fatal(err)
		}
		controller, _, _ := strings.Cut(file, ".")
		write(t, filepath.Join(dir, controller, "c", file), content)
		if _, err := m.Cgroup("/c"); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s with %q: %v", file, content, err)
		}
	}
}

// This machine, whichever version it has, can be measured, and the numbers are not absurd.
func TestThisMachine(t *testing.T) {
	m := New("/")
	mem, err := m.Memory()
	if err != nil || mem.WorkingSet == 0 || mem.WorkingSet > mem.Capacity || mem.Available == 0 {
		t.Errorf("memory %+v, %v", mem, err)
	}
	before, err := m.CPU()
	if err != nil || before == 0 {
		t.Errorf("CPU %v, %v", before, err)
	}
	if started, err := m.Started(); err != nil || time.Since(started) <= 0 {
		t.Errorf("started %v, %v", started, err)
	}
}

func TestFileSystem(t *testing.T) {
	m := New("/")
	got, err := m.FileSystem(t.TempDir())
	if err != nil || got.Capacity == 0 || got.Used+got.Available > got.Capacity || got.InodesUsed+got.InodesFree != got.Inodes || got.Device == 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := m.FileSystem(filepath.Join(t.TempDir(), "gone")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a path that is not there: %v", err)
	}
}

func TestTree(t *testing.T) {
	m, dir := New("/"), t.TempDir()
	empty, err := m.Tree(dir)
	if err != nil || empty.Inodes != 1 {
		t.Fatalf("empty folder %+v, %v", empty, err)
	}
	write(t, filepath.Join(dir, "sub/file"), strings.Repeat("x", 100<<10))
	if err := os.Link(filepath.Join(dir, "sub/file"), filepath.Join(dir, "second-name")); err != nil {
		t.Fatal(err)
	}
	sparse := filepath.Join(dir, "sparse")
	write(t, sparse, "")
	if err := os.Truncate(sparse, 1<<40); err != nil {
		t.Fatal(err)
	}
	got, err := m.Tree(dir)
	if err != nil || got.Inodes != 4 || got.Bytes < 100<<10 || got.Bytes > 1<<20 {
		t.Errorf("%+v, %v; want 4 inodes (the folders, the file, the sparse one) and little more than 100 KiB", got, err)
	}
	if _, err := m.Tree(filepath.Join(dir, "gone")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder that is not there: %v", err)
	}
}

func TestInterfaces(t *testing.T) {
	got, err := New("testdata/v1").Interfaces(7)
	want := []Interface{{Name: "eth0", RxBytes: 443295617, RxErrors: 1, TxBytes: 2255740, TxErrors: 2}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkCgroup is what one container costs each time the node is asked for its statistics.
func BenchmarkCgroup(b *testing.B) {
	m := New("testdata/v1")
	for b.Loop() {
		if _, err := m.Cgroup("/n1/burstable/podu1"); err != nil {
			b.Fatal(err)
		}
	}
}
