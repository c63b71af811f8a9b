package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/everynode/everynode/internal/agent/config"
)

func valid() Options {
	return Options{Server: "https://10.0.0.1:6443", TokenFile: "/t", NodeName: "n1"}
}

func TestValidate(t *testing.T) {
	if err := valid().Validate(); err != nil {
		t.Fatalf("the defaults are refused: %v", err)
	}
	tests := []struct {
		name   string
		change func(*Options)
		want   []string // all in the error
	}{
		{"no server", func(o *Options) { o.Server = "" }, []string{"--server is required", "https://10.0.0.1:6443"}},
		{"server without scheme", func(o *Options) { o.Server = "10.0.0.1:6443" }, []string{"--server", `"10.0.0.1:6443"`, "https"}},
		{"server over http", func(o *Options) { o.Server = "http://10.0.0.1" }, []string{"--server", "https"}},
		{"server with a path", func(o *Options) { o.Server = "https://10.0.0.1:6443/api" }, []string{"--server", "behind the port"}},
		{"node name", func(o *Options) { o.NodeName = "My_Node" }, []string{"--node-name", `"My_Node"`}},
		{"data dir", func(o *Options) { o.DataDir = "data" }, []string{"--data-dir", `"data"`, "absolute"}},
		{"cni dir", func(o *Options) { o.CNIConfDir = "net.d" }, []string{"--cni-conf-dir"}},
		{"manifests", func(o *Options) { o.PodManifestPath = "m" }, []string{"--pod-manifest-path"}},
		{"endpoint", func(o *Options) { o.RuntimeEndpoint = "tcp://127.0.0.1:1" }, []string{"--runtime-endpoint", "unix:///run/containerd/containerd.sock"}},
		{"node ip", func(o *Options) { o.NodeIP = "10.0.0" }, []string{"--node-ip", `"10.0.0"`}},
		{"unspecified node ip", func(o *Options) { o.NodeIP = "0.0.0.0" }, []string{"--node-ip"}},
		{"cluster cidr", func(o *Options) { o.ClusterCIDR = "10.42.1.0/16" }, []string{"--cluster-cidr", "10.42.0.0/16"}},
		{"service ip", func(o *Options) { o.APIServiceIP = "x" }, []string{"API service address", "10.43.0.1"}},
		{"port", func(o *Options) { o.ListenPort = 70000 }, []string{"--listen-port 70000"}},
		{"labels", func(o *Options) { o.NodeLabels = map[string]string{"node-role.kubernetes.io/x": ""} }, []string{"--node-labels", "kubectl label node"}},
		{"two at once", func(o *Options) { o.Server, o.NodeName = "", "_" }, []string{"--server", "--node-name"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := valid()
			tt.change(&o)
			err := o.Validate()
			if err == nil {
				t.Fatal("not refused")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q lacks %q", err, want)
				}
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	o := Options{RuntimeEndpoint: "/run/x.sock"}
	o.setDefaults()
	host, _ := os.Hostname()
	if o.RuntimeEndpoint != "unix:///run/x.sock" || o.DataDir != DefaultDataDir || o.ListenPort != DefaultListenPort || o.NodeName != strings.ToLower(host) {
		t.Errorf("defaults %+v", o)
	}
	o.ListenLoopbackOnly = true
	if got := o.listenAddress(); got != "127.0.0.1:10250" {
		t.Errorf("listens on %s", got)
	}
}

func TestConfigure(t *testing.T) {
	folder, yes := "/from/file", true
	o := Options{PodManifestPath: DefaultPodManifestPath}
	o.Configure(&config.Config{StaticPodPath: &folder, OfflinePods: &yes}, func(string) bool { return false })
	if o.PodManifestPath != folder || !o.OfflinePods {
		t.Errorf("the file was not heard: %+v", o)
	}
	o = Options{PodManifestPath: "/from/flag"}
	o.Configure(&config.Config{StaticPodPath: &folder}, func(flag string) bool { return flag == "pod-manifest-path" })
	if o.PodManifestPath != "/from/flag" || o.OfflinePods {
		t.Errorf("a flag that was given must hold: %+v", o)
	}
}

func TestCheckMachine(t *testing.T) {
	o := valid()
	o.DataDir = filepath.Join(t.TempDir(), "d")
	o.NodeIP = "192.0.2.99"
	if _, err := checkMachine(o); err == nil || !strings.Contains(err.Error(), "--node-ip 192.0.2.99") {
		t.Errorf("an address of another machine: %v", err)
	}
	o.NodeIP = "127.0.0.1"
	if ip, err := checkMachine(o); err != nil || ip.String() != "127.0.0.1" {
		t.Errorf("an address of this machine: %v, %v", ip, err)
	}
	t.Setenv("PATH", "")
	if _, err := checkMachine(o); err == nil || !strings.Contains(err.Error(), "apt-get install") {
		t.Errorf("without iptables: %v", err)
	}
}

func TestOneAgentADataDir(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lockDataDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockDataDir(dir); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("a second agent: %v", err)
	}
	unlock()
	unlock, err = lockDataDir(dir)
	if err != nil {
		t.Fatalf("after the first ended: %v", err)
	}
	unlock()
}
