// Package layout names every file and directory that `everynode up` owns on a machine.
//
// It decides where things are and nothing else: it never creates, reads or removes a file. The
// commands up and down, the supervisor and the tear-down all take their paths from here, so that
// what one of them makes is what another one removes.
package layout

import (
	"fmt"
	"path/filepath"
)

// Defaults of the two roots. Everything that must survive a reboot is under DataDir, everything
// that must not is under RunDir.
const (
	DefaultDataDir = "/var/lib/everynode"
	DefaultRunDir  = "/run/everynode"
)

// Where pod logs are, as every Kubernetes node has them: log shippers read these two.
const (
	PodLogDir       = "/var/log/pods"
	ContainerLogDir = "/var/log/containers"
)

// Layout is one installation of `everynode up`.
type Layout struct {
	DataDir string `json:"dataDir"`
	RunDir  string `json:"runDir"`
}

// New returns the layout of the given roots, made absolute. An empty root means the default.
func New(dataDir, runDir string) (Layout, error) {
	if dataDir == "" {
		dataDir = DefaultDataDir
	}
	if runDir == "" {
		runDir = DefaultRunDir
	}
	for _, dir := range []*string{&dataDir, &runDir} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return Layout{}, fmt.Errorf("path %s: %w", *dir, err)
		}
		if abs == "/" {
			return Layout{}, fmt.Errorf("path %s: it is the root of the file system; name a directory of its own", *dir)
		}
		*dir = abs
	}
	return Layout{DataDir: dataDir, RunDir: runDir}, nil
}

// AdminKubeconfig is what kubectl uses on this machine.
func (l Layout) AdminKubeconfig() string { return filepath.Join(l.DataDir, "admin.kubeconfig") }

// JoinToken is the file that lets another machine join.
func (l Layout) JoinToken() string { return filepath.Join(l.DataDir, "join-token") }

// Log is the log file of one supervised process, or of the supervisor itself.
func (l Layout) Log(component string) string {
	return filepath.Join(l.DataDir, "logs", component+".log")
}

// PodVolumes holds the volumes of the pods of this node, by pod UID.
func (l Layout) PodVolumes() string { return filepath.Join(l.DataDir, "pods") }

// PodLogRecord lists the pod log directories that were made here, for `down --purge`.
func (l Layout) PodLogRecord() string { return filepath.Join(l.DataDir, "pod-logs") }

// CNIConf is the directory that the agent writes its CNI configuration to and containerd reads.
func (l Layout) CNIConf() string { return filepath.Join(l.DataDir, "cni", "net.d") }

// CNILeases is where the addresses that pods have are written down.
func (l Layout) CNILeases() string { return filepath.Join(l.DataDir, "cni", "ipam") }

// Registry holds per-registry settings for containerd (HOST/hosts.toml).
func (l Layout) Registry() string { return filepath.Join(l.DataDir, "registry") }

// ContainerdRoot holds images and snapshots.
func (l Layout) ContainerdRoot() string { return filepath.Join(l.DataDir, "containerd") }

// ContainerdConfig is generated at each start.
func (l Layout) ContainerdConfig() string {
	return filepath.Join(l.DataDir, "containerd-config.toml")
}

// ContainerdState holds the running containers' bundles.
func (l Layout) ContainerdState() string { return filepath.Join(l.RunDir, "containerd") }

// ContainerdSocket is where containerd answers.
func (l Layout) ContainerdSocket() string { return filepath.Join(l.RunDir, "containerd.sock") }

// RuntimeEndpoint is ContainerdSocket as the agent's flag takes it.
func (l Layout) RuntimeEndpoint() string { return "unix://" + l.ContainerdSocket() }

// RuncRoot holds runc's state.
func (l Layout) RuncRoot() string { return filepath.Join(l.RunDir, "runc") }

// SupervisorSpec is what the supervisor was told to run.
func (l Layout) SupervisorSpec() string { return filepath.Join(l.DataDir, "supervisor.json") }

// SupervisorSocket is where the supervisor answers.
func (l Layout) SupervisorSocket() string { return filepath.Join(l.RunDir, "supervisor.sock") }

// SupervisorPID is the supervisor's pid file.
func (l Layout) SupervisorPID() string { return filepath.Join(l.RunDir, "supervisor.pid") }

// SupervisorLocks are held by the supervisor as long as it lives: one for the data, one for the
// machine, so that neither is ever shared by two.
func (l Layout) SupervisorLocks() []string {
	return []string{filepath.Join(l.DataDir, "supervisor.lock"), filepath.Join(l.RunDir, "supervisor.lock")}
}
