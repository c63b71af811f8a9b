package cluster

import (
	"os"
	"path/filepath"
)

// DataDir is where servers and agents keep everything, in every machine.
const DataDir = dataDir

// Configure writes the configuration file of a node's agent that has not been started yet, and adds
// flags to those that it is started with.
func (n *Node) Configure(settings string, flags ...string) {
	n.t.Helper()
	file := filepath.Join(dataDir, "agent.yaml")
	text := "apiVersion: everynode.io/v1alpha1\nkind: AgentConfiguration\n" + settings
	if err := os.WriteFile(n.Path(file), []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
	n.flags = append(append(n.flags, "--config", file), flags...)
}

// Must runs a command in the machine and returns its output.
func (n *Node) Must(argv ...string) string {
	n.t.Helper()
	r, err := n.Run(n.t.Context(), argv...)
	if err != nil || r.Code != 0 {
		n.t.Fatalf("%s: %v: %v, code %d: %s", n.Name, argv, err, r.Code, r.Stderr)
	}
	return r.Stdout
}

// Ctr runs containerd's own client on the images and containers of the node's pods.
func (n *Node) Ctr(args ...string) string {
	n.t.Helper()
	return n.Must(append([]string{"ctr", "--address", n.cluster.layout.ContainerdSocket(), "--namespace", "k8s.io"}, args...)...)
}
