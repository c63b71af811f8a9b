package agent

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/everynode/everynode/internal/agent/node"
)

// packages are what an agent needs of Debian.
const packages = "containerd runc containernetworking-plugins iptables"

// checkMachine finds what this machine lacks before anything is started, and the node's address.
func checkMachine(o Options) (net.IP, error) {
	if uid := os.Geteuid(); uid != 0 {
		return nil, fmt.Errorf("the agent must run as root (it mounts volumes, sets up networks and cgroups), not as user %d: use sudo", uid)
	}
	if _, err := exec.LookPath("iptables"); err != nil {
		return nil, fmt.Errorf("iptables is missing, and pods could not reach the world: install it with: apt-get install %s", packages)
	}
	if err := os.MkdirAll(o.DataDir, 0o755); err != nil {
		return nil, fmt.Errorf("--data-dir %s: %w", o.DataDir, err)
	}
	if o.NodeIP == "" {
		return node.DefaultIP()
	}
	ip := net.ParseIP(o.NodeIP)
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("addresses of this machine: %w", err)
	}
	if !slices.ContainsFunc(addrs, func(a net.Addr) bool { n, ok := a.(*net.IPNet); return ok && n.IP.Equal(ip) }) {
		return nil, fmt.Errorf("--node-ip %s: no interface of this machine has this address; it has %v", o.NodeIP, addrs)
	}
	return ip, nil
}

// lockDataDir keeps a second agent away from the same node. The kernel releases the lock with the
// process, however that ends.
func lockDataDir(dir string) (unlock func(), err error) {
	path := filepath.Join(dir, "agent", "lock")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("--data-dir %s: %w", dir, err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("--data-dir %s: %w", dir, err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = errors.New("another agent is running with it: stop that one, or give this one another --data-dir")
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("--data-dir %s: %w", dir, err)
	}
	return func() { _ = f.Close() }, nil
}
