package node

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// computer is a folder that looks like a machine's /proc and /sys.
func computer(t *testing.T) machine {
	t.Helper()
	root := t.TempDir()
	for name, content := range map[string]string{
		"proc/meminfo":                                             "MemTotal:        2097152 kB\nMemAvailable:    1048576 kB\nSwapTotal:  1024 kB\nHugePages_Total: 4\n",
		"proc/loadavg":                                             "0.10 0.20 0.30 2/345 6789\n",
		"proc/sys/kernel/pid_max":                                  "32768\n",
		"proc/sys/kernel/threads-max":                              "15000\n",
		"proc/sys/kernel/random/boot_id":                           "b00t\n",
		"proc/sys/kernel/osrelease":                                "6.1.0\n",
		"sys/devices/system/cpu/online":                            "0-2,5\n",
		"sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages":    "4\n",
		"sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages": "0\n",
		"etc/machine-id":                                           "m1\n",
		"etc/os-release":                                           "NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return newMachine(root, root)
}

func TestCapacity(t *testing.T) {
	m := computer(t)
	capacity, err := m.capacity()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for name, q := range capacity {
		got[string(name)] = q.String()
	}
	disk := capacity[corev1.ResourceEphemeralStorage]
	if disk.Sign() <= 0 {
		t.Errorf("ephemeral-storage %s", disk.String())
	}
	delete(got, "ephemeral-storage")
	want := map[string]string{"cpu": "4", "memory": "2Gi", "pods": "110", "hugepages-2Mi": "8Mi", "hugepages-1Gi": "0"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestInfo(t *testing.T) {
	info := computer(t).info("containerd://1.6.20")
	if info.OSImage != "Debian GNU/Linux 12 (bookworm)" || info.SystemUUID != "m1" || info.BootID != "b00t" || info.KernelVersion != "6.1.0" ||
		info.ContainerRuntimeVersion != "containerd://1.6.20" || info.KubeletVersion == "" || *info.Swap.Capacity != 1<<20 {
		t.Errorf("info %+v", info)
	}
	m := computer(t)
	if err := os.WriteFile(m.path("proc/meminfo"), []byte("MemTotal: 1024 kB\nSwapTotal: 0 kB\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if swap := m.info("").Swap; swap != nil {
		t.Errorf("swap %v on a machine without any: the API server refuses such a Node", swap)
	}
}

func TestCountRanges(t *testing.T) {
	for list, want := range map[string]int{"0": 1, "0-3": 4, "0-3,8,10-11": 7} {
		if n, err := countRanges(list); err != nil || n != want {
			t.Errorf("countRanges(%q) = %d, %v, want %d", list, n, err, want)
		}
	}
	if _, err := countRanges("a-b"); err == nil {
		t.Error("letters were counted")
	}
}

func TestFirstGlobal(t *testing.T) {
	ip := func(s string) net.Addr { return &net.IPNet{IP: net.ParseIP(s)} }
	tests := []struct {
		addrs []net.Addr
		want  string
	}{
		{[]net.Addr{ip("127.0.0.1"), ip("fe80::1"), ip("2001:db8::1"), ip("10.0.0.1")}, "10.0.0.1"},
		{[]net.Addr{ip("::1"), ip("2001:db8::1")}, "2001:db8::1"},
		{[]net.Addr{ip("127.0.0.1"), ip("169.254.0.1")}, "<nil>"},
	}
	for _, tt := range tests {
		if got := firstGlobal(tt.addrs).String(); got != tt.want {
			t.Errorf("firstGlobal(%v) = %s, want %s", tt.addrs, got, tt.want)
		}
	}
}
