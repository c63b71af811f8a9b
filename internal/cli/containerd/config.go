// Package containerd finds, configures and starts the container runtime of `everynode up`.
//
// The runtime is the machine's containerd program with a configuration, a root, a state directory
// and a socket of its own, so a containerd that the machine already runs is never touched. The
// supervisor starts it, the tear-down starts it once more when containers outlived it.
package containerd

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"golang.org/x/sys/unix"

	"github.com/everynode/everynode/internal/cli/layout"
)

// PauseImage is the sandbox image; the agent makes and imports it, so that it is never pulled.
const PauseImage = "everynode.local/pause:1"

// Config is what varies between machines in containerd's configuration.
type Config struct {
	Layout layout.Layout
	Tools  Tools
	// RestrictOOMScore is set where the machine may not lower oom_score_adj: runc would fail every
	// container with "can't get final child's PID from pipe: EOF".
	RestrictOOMScore bool
	// Snapshotter is "overlayfs", or "native" where the data lies on an overlay itself.
	Snapshotter string
	Debug       bool
}

// Detect fills in a Config for this machine. The data directory must exist.
func Detect(l layout.Layout, tools Tools) (Config, error) {
	c := Config{Layout: l, Tools: tools, Snapshotter: "overlayfs"}
	mayLower, err := hasCapability(unix.CAP_SYS_RESOURCE)
	if err != nil {
		return c, err
	}
	c.RestrictOOMScore = !mayLower
	var fs unix.Statfs_t
	if err := unix.Statfs(l.DataDir, &fs); err != nil {
		return c, fmt.Errorf("file system of %s: %w", l.DataDir, err)
	}
	if fs.Type == unix.OVERLAYFS_SUPER_MAGIC {
		c.Snapshotter = "native"
	}
	return c, nil
}

// Write renders the configuration and makes the directories it names.
func (c Config) Write() error {
	text, err := c.render()
	if err != nil {
		return err
	}
	l := c.Layout
	for _, dir := range []string{l.ContainerdRoot(), l.ContainerdState(), l.RuncRoot(), l.CNIConf(), l.Registry()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("containerd's directories: %w", err)
		}
	}
	if err := os.WriteFile(l.ContainerdConfig(), text, 0o600); err != nil {
		return fmt.Errorf("containerd's configuration: %w", err)
	}
	return nil
}

func (c Config) render() ([]byte, error) {
	var b bytes.Buffer
	if err := configTemplate.Execute(&b, c); err != nil {
		return nil, fmt.Errorf("containerd's configuration: %w", err)
	}
	return b.Bytes(), nil
}

// Version 2 is read by containerd 1.6, 1.7 and 2.x alike (the last one migrates it in memory).
var configTemplate = template.Must(template.New("containerd").Parse(`# Written by everynode at every start: changes here are lost.
version = 2
root = {{printf "%q" .Layout.ContainerdRoot}}
state = {{printf "%q" .Layout.ContainerdState}}
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.internal.v1.opt",
]

[grpc]
  address = {{printf "%q" .Layout.ContainerdSocket}}

# A containerd that starts again kills what does not tell its state in this time, whole pods if it
# is their sandbox: the defaults, 5 s and 2 s, are short for a machine that has much to do.
[timeouts]
  "io.containerd.timeout.shim.load" = "30s"
  "io.containerd.timeout.task.state" = "30s"

[debug]
  level = {{if .Debug}}"debug"{{else}}"warn"{{end}}

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "` + PauseImage + `"
  disable_tcp_service = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  restrict_oom_score_adj = {{.RestrictOOMScore}}
  netns_mounts_under_state_dir = true

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = {{printf "%q" .Tools.CNIBinDir}}
    conf_dir = {{printf "%q" .Layout.CNIConf}}

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = {{printf "%q" .Snapshotter}}
    default_runtime_name = "runc"

  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = {{printf "%q" .Tools.Runc}}
      Root = {{printf "%q" .Layout.RuncRoot}}
      SystemdCgroup = false

  # One folder a registry: HOST/hosts.toml with mirrors, certificates and so on.
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = {{printf "%q" .Layout.Registry}}
`))

// hasCapability tells whether this process has the capability in effect.
func hasCapability(number int) (bool, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false, fmt.Errorf("capabilities: %w", err)
	}
	for _, line := range strings.Split(string(status), "\n") {
		hex, ok := strings.CutPrefix(line, "CapEff:")
		if !ok {
			continue
		}
		var set uint64
		if _, err := fmt.Sscanf(strings.TrimSpace(hex), "%x", &set); err != nil {
			return false, fmt.Errorf("capabilities: %q: %w", line, err)
		}
		return set&(1<<uint(number)) != 0, nil
	}
	return false, fmt.Errorf("capabilities: no CapEff line in /proc/self/status")
}

// Tools are the programs of the machine that a node needs.
type Tools struct {
	Containerd string `json:"containerd"`
	Runc       string `json:"runc"`
	CNIBinDir  string `json:"cniBinDir"`
}

// Where programs are when PATH does not have them: sudo and cron often leave /usr/sbin out.
var searchPath = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

var cniBinDirs = []string{"/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"}

var cniPlugins = []string{"bridge", "host-local", "loopback", "portmap"}

// MissingError is what a machine lacks to run containers.
type MissingError struct {
	// What are the missing programs and plugins.
	What []string
	// Packages of Debian have them.
	Packages []string
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("not on this machine: %s; install them first, on Debian with `apt-get install %s`",
		strings.Join(e.What, ", "), strings.Join(e.Packages, " "))
}

// FindTools looks for containerd, runc, iptables and the CNI plugins and says, for all that are
// missing at once, which packages have them (MissingError).
func FindTools() (Tools, error) {
	return findTools(append(filepath.SplitList(os.Getenv("PATH")), searchPath...), cniBinDirs)
}

func findTools(path, cniDirs []string) (Tools, error) {
	var t Tools
	var missing, packages []string
	need := func(program, pkg string) string {
		found, ok := lookIn(path, program)
		if !ok {
			missing, packages = append(missing, program), append(packages, pkg)
		}
		return found
	}
	t.Containerd = need("containerd", "containerd")
	need("containerd-shim-runc-v2", "containerd")
	t.Runc = need("runc", "runc")
	need("iptables", "iptables")
	if t.CNIBinDir = findCNI(cniDirs); t.CNIBinDir == "" {
		missing = append(missing, fmt.Sprintf("the CNI plugins %s (in one of %s)",
			strings.Join(cniPlugins, ", "), strings.Join(cniDirs, ", ")))
		packages = append(packages, "containernetworking-plugins")
	}
	if len(missing) > 0 {
		return t, &MissingError{What: missing, Packages: unique(packages)}
	}
	return t, nil
}

func lookIn(dirs []string, program string) (string, bool) {
	for _, dir := range dirs {
		path := filepath.Join(dir, program)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 && filepath.IsAbs(path) {
			return path, true
		}
	}
	return "", false
}

func findCNI(dirs []string) string {
	for _, dir := range dirs {
		complete := true
		for _, plugin := range cniPlugins {
			if _, err := os.Stat(filepath.Join(dir, plugin)); err != nil {
				complete = false
			}
		}
		if complete {
			return dir
		}
	}
	return ""
}

func unique(in []string) []string {
	var out []string
	for _, s := range in {
		if len(out) == 0 || out[len(out)-1] != s {
			out = append(out, s)
		}
	}
	return out
}
