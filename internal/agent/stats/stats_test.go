package stats

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/everynode/everynode/internal/agent/measure"
)

// fixture is a machine in a folder, with pods whose cgroups the test writes.
type fixture struct {
	t       *testing.T
	root    string
	pods    []*corev1.Pod
	lists   int // how often the pods were listed: once for each measurement
	layers  []*runtimeapi.ContainerStats
	crashed bool
	*Provider
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, root: t.TempDir()}
	f.write("proc/meminfo", "MemTotal: 4194304 kB\nMemFree: 1048576 kB\nMemAvailable: 2097152 kB\n")
	f.write("proc/loadavg", "0 0 0 2/345 6789\n")
	f.write("proc/sys/kernel/pid_max", "32768\n")
	f.write("proc/stat", "btime 1000\n")
	f.write(fmt.Sprintf("proc/%d/net/dev", os.Getpid()), "a|b\nc|d\n eth0: 1 0 2 0 0 0 0 0 3 0 4 0 0 0 0 0\n")
	f.cgroup("", time.Hour, 3<<30)
	var err error
	f.Provider, err = New(Options{
		NodeName: "n1", Machine: measure.New(f.root), CgroupRoot: "/n1", DataDir: f.root, VolumesDir: filepath.Join(f.root, "pods"),
		Pods: f, Runtime: f, Images: f,
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) write(path, content string) {
	f.t.Helper()
	path = filepath.Join(f.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// cgroup writes a cgroup of which a third of the memory is inactive cache.
func (f *fixture) cgroup(path string, cpu time.Duration, memory uint64) {
	f.t.Helper()
	dir := filepath.Join("sys/fs/cgroup/memory", path)
	f.write(filepath.Join("sys/fs/cgroup/cpuacct", path, "cpuacct.usage"), fmt.Sprintln(cpu.Nanoseconds()))
	f.write(filepath.Join(dir, "memory.usage_in_bytes"), fmt.Sprintln(memory))
	f.write(filepath.Join(dir, "memory.limit_in_bytes"), fmt.Sprintln(2*memory))
	f.write(filepath.Join(dir, "memory.stat"), fmt.Sprintf("total_rss %d\ntotal_inactive_file %d\ntotal_pgfault 7\n", memory/2, memory/3))
	f.write(filepath.Join("sys/fs/cgroup/pids", path, "pids.current"), "5\n")
}

// run adds a pod that has one container, started now, with nothing used.
func (f *fixture) run(name string) *corev1.Pod {
	f.t.Helper()
	started := metav1.Now()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name)},
		Status: corev1.PodStatus{StartTime: &started, ContainerStatuses: []corev1.ContainerStatus{
			{Name: "c", Image: "image", ContainerID: "containerd://id-" + name, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: started}}},
			{Name: "ended", ContainerID: "containerd://ended", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}},
		}},
	}
	f.pods = append(f.pods, pod)
	f.use(pod, 0, 3<<20)
	return pod
}

// use sets what the pod's container uses; the pod as a whole uses a MiB more.
func (f *fixture) use(pod *corev1.Pod, cpu time.Duration, memory uint64) {
	f.t.Helper()
	f.cgroup(f.Cgroup(pod), cpu, memory+1<<20)
	f.cgroup(filepath.Join(f.Cgroup(pod), "id-"+pod.Name), cpu, memory)
}

func (f *fixture) Pods() []*corev1.Pod                                { f.lists++; return f.pods }
func (f *fixture) Cgroup(pod *corev1.Pod) string                      { return "/n1/pod" + string(pod.UID) }
func (f *fixture) LogDir(pod *corev1.Pod) string                      { return filepath.Join(f.root, "logs", pod.Name) }
func (f *fixture) Sandbox(_, pod string, _ types.UID) (string, error) { return "sandbox-" + pod, nil }

func (f *fixture) ListContainerStats(context.Context, *runtimeapi.ContainerStatsFilter) ([]*runtimeapi.ContainerStats, error) {
	if f.crashed {
		return nil, context.DeadlineExceeded
	}
	return f.layers, nil
}

func (f *fixture) ImageFsInfo(context.Context) (*runtimeapi.ImageFsInfoResponse, error) {
	if f.crashed {
		return nil, context.DeadlineExceeded
	}
	return &runtimeapi.ImageFsInfoResponse{ImageFilesystems: []*runtimeapi.FilesystemUsage{{
		FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: f.root}, UsedBytes: &runtimeapi.UInt64Value{Value: 123}, InodesUsed: &runtimeapi.UInt64Value{Value: 4},
	}}}, nil
}

func (f *fixture) cpuAndMemory() *statsapi.Summary {
	f.t.Helper()
	s, err := f.CPUAndMemory(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	return s
}

// cores is what the container of the first pod uses, in thousandths of a processor.
func cores(s *statsapi.Summary) uint64 { return *s.Pods[0].Containers[0].CPU.UsageNanoCores / 1e6 }

func TestRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		pod := f.run("p")
		time.Sleep(time.Hour)
		f.use(pod, time.Hour, 3<<20)
		go func() { // busy with half a processor while the first to ask waits
			time.Sleep(firstWindow / 2)
			f.use(pod, time.Hour+firstWindow/2, 3<<20)
		}()
		began := time.Now()
		if got := cores(f.cpuAndMemory()); got != 500 || time.Since(began) != firstWindow {
			t.Errorf("first answer after %v: %dm, want 500m after %v", time.Since(began), got, firstWindow)
		}
		lists := f.lists
		time.Sleep(Fresh - time.Second)
		f.use(pod, time.Hour+20*time.Second, 3<<20)
		if got := cores(f.cpuAndMemory()); got != 500 || f.lists != lists {
			t.Errorf("%dm after %d more measurements: the last one was good enough", got, f.lists-lists)
		}
		time.Sleep(time.Second)
		began = time.Now()
		f.use(pod, time.Hour+firstWindow/2+20*time.Second, 3<<20)
		if got := cores(f.cpuAndMemory()); got != 2000 || time.Since(began) != 0 {
			t.Errorf("%v later: %dm, want 2000m over the %v since the last measurement", time.Since(began), got, Fresh)
		}
		time.Sleep(2 * longestWindow) // idle
		began = time.Now()
		if got := cores(f.cpuAndMemory()); got != 0 || time.Since(began) != firstWindow {
			t.Errorf("after a long silence %dm, measured in %v", got, time.Since(began))
		}
	})
}

// A container that is younger than the last measurement has used all it has since it started, and
// one that was restarted in the same cgroup does not count backwards.
func TestRatesOfNewAndRestarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.cpuAndMemory()
		time.Sleep(Fresh)
		pod := f.run("p")
		time.Sleep(4 * time.Second)
		f.use(pod, 2*time.Second, 3<<20)
		if got := cores(f.cpuAndMemory()); got != 500 {
			t.Errorf("a new container: %dm, want 500m", got)
		}
		time.Sleep(Fresh)
		pod.Status.ContainerStatuses[0].State.Running.StartedAt = metav1.NewTime(time.Now().Add(-4 * time.Second))
		f.use(pod, time.Second, 3<<20)
		if got := cores(f.cpuAndMemory()); got != 250 {
			t.Errorf("a restarted container: %dm, want 250m", got)
		}
	})
}

// Everyone who asks at once gets the same measurement.
func TestManyAskAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.run("p")
		for range 20 {
			go func() {
				if _, err := f.CPUAndMemory(t.Context()); err != nil {
					t.Error(err)
				}
			}()
		}
		given, cancel := context.WithTimeout(t.Context(), firstWindow/2)
		defer cancel()
		synctest.Wait()
		if _, err := f.CPUAndMemory(given); err == nil {
			t.Error("who gave up was answered")
		}
		time.Sleep(firstWindow)
		synctest.Wait()
		if f.lists != 2 {
			t.Errorf("measured %d times, want twice", f.lists)
		}
	})
}

func TestSummary(t *testing.T) {
	f := newFixture(t)
	pod := f.run("p")
	pod.Spec.Volumes = []corev1.Volume{
		{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		{Name: "memory", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}},
		{Name: "unmounted", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
	}
	f.write("pods/uid-p/volumes/kubernetes.io~empty-dir/scratch/file", strings.Repeat("x", 64<<10))
	f.write("pods/uid-p/volumes/kubernetes.io~empty-dir/memory/file", strings.Repeat("x", 64<<10))
	f.write("logs/p/c/0.log", strings.Repeat("x", 32<<10))
	f.write("sys/fs/cgroup/memory/n1/poduid-p/sandbox-p/cgroup.procs", "77\n")
	f.write("proc/77/net/dev", "a|b\nc|d\n eth0: 10 0 20 0 0 0 0 0 30 0 40 0 0 0 0 0\n")
	f.cgroup("/n1", time.Minute, 6<<20)
	f.layers = []*runtimeapi.ContainerStats{{
		Attributes:    &runtimeapi.ContainerAttributes{Id: "id-p"},
		WritableLayer: &runtimeapi.FilesystemUsage{Timestamp: 1, UsedBytes: &runtimeapi.UInt64Value{Value: 1 << 20}, InodesUsed: &runtimeapi.UInt64Value{Value: 9}},
	}}
	f.pods = append(f.pods, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "pending", UID: "uid-pending"}})
	s, err := f.Summary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Pods) != 1 || len(s.Pods[0].Containers) != 1 {
		t.Fatalf("pods %+v: want the one that runs, with the container that runs", s.Pods)
	}
	p := s.Pods[0]
	c := p.Containers[0]
	got := map[string]uint64{
		"node CPU": *s.Node.CPU.UsageCoreNanoSeconds, "node working set": *s.Node.Memory.WorkingSetBytes, "node available": *s.Node.Memory.AvailableBytes,
		"node rx": *s.Node.Network.RxBytes, "node processes": uint64(*s.Node.Rlimit.NumOfRunningProcesses), "pods memory": *s.Node.SystemContainers[0].Memory.UsageBytes,
		"images": *s.Node.Runtime.ImageFs.UsedBytes, "pod memory": *p.Memory.UsageBytes, "pod tx": *p.Network.TxBytes, "pod processes": *p.ProcessStats.ProcessCount,
		"container memory": *c.Memory.UsageBytes, "container working set": *c.Memory.WorkingSetBytes, "container RSS": *c.Memory.RSSBytes,
		"container available": *c.Memory.AvailableBytes, "layer": *c.Rootfs.UsedBytes, "volumes": uint64(len(p.VolumeStats)),
	}
	want := map[string]uint64{
		"node CPU": uint64(time.Hour), "node working set": 2 << 30, "node available": 2 << 30, "node rx": 1, "node processes": 345, "pods memory": 6 << 20,
		"images": 123, "pod memory": 4 << 20, "pod tx": 30, "pod processes": 5, "container memory": 3 << 20, "container working set": 2 << 20,
		"container RSS": 3 << 19, "container available": 4 << 20, "layer": 1 << 20, "volumes": 2,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if used := *p.EphemeralStorage.UsedBytes; used < 1<<20+96<<10 || used > 1<<20+128<<10 {
		t.Errorf("ephemeral storage %d: want layer, disk volume and logs, and not the volume in memory", used)
	}
	if used := *c.Logs.UsedBytes; used < 32<<10 || used > 48<<10 {
		t.Errorf("logs %d", used)
	}
	if *s.Node.Fs.CapacityBytes == 0 || *p.VolumeStats[0].CapacityBytes == 0 {
		t.Error("a file system without capacity")
	}
}

// A runtime that does not answer takes away what only it knows.
func TestSummaryWithoutTheRuntime(t *testing.T) {
	f := newFixture(t)
	f.run("p")
	f.crashed = true
	s, err := f.Summary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.Pods[0].Containers[0].Rootfs != nil || s.Pods[0].Containers[0].CPU == nil || s.Node.Fs == nil {
		t.Errorf("%+v", s)
	}
}

func scrape(t *testing.T, f *fixture, cadvisor bool) string {
	t.Helper()
	h := f.ResourceMetrics()
	if cadvisor {
		h = f.CAdvisorMetrics()
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
	if w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func wantLines(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains(text, "\n"+line) {
			t.Errorf("no line %s in\n%s", line, text)
		}
	}
}

func TestResourceMetrics(t *testing.T) {
	f := newFixture(t)
	f.use(f.run("p"), 1500*time.Millisecond, 3<<20)
	text := scrape(t, f, false)
	wantLines(t, text, "node_cpu_usage_seconds_total 3600 ", "node_memory_working_set_bytes 2.147483648e+09 ",
		`container_cpu_usage_seconds_total{container="c",namespace="ns",pod="p"} 1.5 `,
		`container_memory_working_set_bytes{container="c",namespace="ns",pod="p"} 2.097152e+06 `,
		`container_start_time_seconds{container="c",namespace="ns",pod="p"} `,
		`pod_cpu_usage_seconds_total{namespace="ns",pod="p"} 1.5 `, `pod_memory_working_set_bytes{namespace="ns",pod="p"} `,
		"resource_scrape_error 0", "scrape_error 0")
	if f.lists != 1 {
		t.Errorf("measured %d times: a scrape needs no rates", f.lists)
	}
}

// What cannot be read is said, and the rest is there.
func TestScrapeError(t *testing.T) {
	f := newFixture(t)
	f.run("p")
	f.write("sys/fs/cgroup/cpuacct/n1/poduid-p/cpuacct.usage", "nonsense\n")
	wantLines(t, scrape(t, f, false), "resource_scrape_error 1", "node_cpu_usage_seconds_total 3600 ")
}

func TestCAdvisorMetrics(t *testing.T) {
	f := newFixture(t)
	f.use(f.run("p"), 1500*time.Millisecond, 3<<20)
	f.write("sys/fs/cgroup/memory/n1/poduid-p/sandbox-p/cgroup.procs", "77\n")
	f.write("proc/77/net/dev", "a|b\nc|d\n eth0: 10 0 20 0 0 0 0 0 30 0 40 0 0 0 0 0\n")
	wantLines(t, scrape(t, f, true),
		`container_cpu_usage_seconds_total{container="c",cpu="total",id="/n1/poduid-p/id-p",image="image",name="id-p",namespace="ns",pod="p"} 1.5 `,
		`container_memory_working_set_bytes{container="",id="/n1/poduid-p",image="",name="",namespace="ns",pod="p"} `,
		`container_memory_rss{container="",id="/",image="",name="",namespace="",pod=""} `,
		`container_network_transmit_bytes_total{container="",id="/n1/poduid-p",image="",interface="eth0",name="",namespace="ns",pod="p"} 30 `,
		"machine_memory_bytes 4.294967296e+09", "container_scrape_error 0")
}
