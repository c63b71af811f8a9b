package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	ocgroups "github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/everynode/everynode/internal/agent/images"
	"github.com/everynode/everynode/internal/cli/teardown"
)

// kubeletDir is the kubelet's root directory, in every machine.
const kubeletDir = "/var/lib/kubelet"

// kubeletConfig leaves all as it comes but what this machine and the cluster call for: cgroups v1,
// no eviction because of the real machine's disk, cgroups below the node's own, nobody asks it.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: %s
address: 127.0.0.1
authentication: {anonymous: {enabled: false}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupRoot: %s
enforceNodeAllocatable: [none]
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
clusterDomain: cluster.local
evictionHard: {memory.available: 0%%, nodefs.available: 0%%, nodefs.inodesFree: 0%%, imagefs.available: 0%%, imagefs.inodesFree: 0%%, pid.available: 0%%}
imageGCHighThresholdPercent: 100
maxPods: 250
`

// kubeletCNI is what everynode's agent writes for a pod range.
const kubeletCNI = `{"cniVersion": "0.4.0", "name": "everynode", "plugins": [
  {"type": "bridge", "bridge": "everynode0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": %q}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}
]}
`

// kubeletSysctls are settings of the whole machine that a kubelet would change, and what it wants.
var kubeletSysctls = map[string]string{
	"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
	"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
}

// AddKubeletNode plugs a machine in and starts containerd and the given kubelet, as a second subject
// of what everynode's agent is measured by: the same runtime, images, network and server. Agent is
// the kubelet. It is the cluster's administrator: what its identity may do is not measured.
func (c *Cluster) AddKubeletNode(kubelet string) *Node {
	c.t.Helper()
	n := c.AddMachine()
	n.StartContainerd()
	if err := n.prepareKubelet(); err != nil {
		c.t.Fatalf("%s: %v", n.Name, err)
	}
	n.Ctr("images", "import", kubeletDir+"/pause.tar")
	for _, image := range c.programs.Images {
		n.Ctr("images", "import", filepath.Join(dataDir, "images", filepath.Base(image)))
	}
	n.Agent = n.Start("kubelet", kubelet, "--config", kubeletDir+"/config.yaml", "--kubeconfig", kubeletDir+"/kubeconfig",
		"--root-dir", kubeletDir, "--hostname-override", n.Name, "--node-ip", n.Address)
	var podCIDR string
	Await(c.t, n.Name+" has a pod range", 60*time.Second, func(ctx context.Context) error {
		node, err := c.Client().CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if podCIDR = node.Spec.PodCIDR; podCIDR == "" {
			return errors.New("none yet")
		}
		return nil
	})
	l := c.layout
	conf := n.Path(l.CNIConf())
	if err := errors.Join(
		os.MkdirAll(conf, 0o755),
		os.WriteFile(filepath.Join(conf, "10-everynode.conflist"), fmt.Appendf(nil, kubeletCNI, l.CNILeases(), podCIDR), 0o600),
	); err != nil {
		c.t.Fatalf("%s: %v", n.Name, err)
	}
	return n
}

func (n *Node) prepareKubelet() error {
	root := "/" + teardown.CgroupParent(n.Name)
	kubeconfig, err := os.ReadFile(n.cluster.Kubeconfig())
	if err != nil {
		return err
	}
	pause, _, err := images.PauseArchive()
	if err != nil {
		return err
	}
	dir := n.Path(kubeletDir)
	if err := errors.Join(
		os.MkdirAll(filepath.Join(dir, "sysctl"), 0o700),
		os.WriteFile(filepath.Join(dir, "config.yaml"), fmt.Appendf(nil, kubeletConfig, n.cluster.layout.RuntimeEndpoint(), root), 0o600),
		os.WriteFile(filepath.Join(dir, "kubeconfig"), kubeconfig, 0o600),
		os.WriteFile(filepath.Join(dir, "pause.tar"), pause, 0o600),
	); err != nil {
		return err
	}
	// A kubelet sets them without asking, and they are the real machine's: it gets files instead.
	for name, value := range kubeletSysctls {
		file := filepath.Join("sysctl", strings.ReplaceAll(name, "/", "."))
		if err := os.WriteFile(filepath.Join(dir, file), []byte(value+"\n"), 0o600); err != nil {
			return err
		}
		n.Do(func() {
			err = unix.Mount(filepath.Join(kubeletDir, file), filepath.Join("/proc/sys", name), "", unix.MS_BIND, "")
		})
		if err != nil {
			return fmt.Errorf("sysctl %s: %w", name, err)
		}
	}
	// A kubelet wants its cgroup to be there.
	cgroup, err := manager.New(&ocgroups.Cgroup{Path: root, Resources: &ocgroups.Resources{SkipDevices: true}})
	if err == nil {
		err = cgroup.Apply(-1)
	}
	if err != nil {
		return fmt.Errorf("cgroup %s: %w", root, err)
	}
	return nil
}
