package cli

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/everynode/everynode/internal/agent"
	"github.com/everynode/everynode/internal/cli/footprint"
)

func newAgent() *cobra.Command {
	var o agent.Options
	cmd := &cobra.Command{
		Use:     "agent",
		GroupID: "parts",
		Short:   "Run a node: the pods that the server gives this machine, in its container runtime",
		Long: `Run a node in the foreground: join the server, register this machine as a Node, and run the
pods that it is given in the container runtime.

The join token is needed once; afterwards the node has its own certificate, in DIR/agent. A
stopped agent leaves its containers running, and finds them again when it starts.

Image archives in DIR/images/*.tar are imported at start.`,
		Example: `  # On the server: make a token for the new machine
  everynode token create > join-token

  # On the new machine
  everynode agent --server https://192.0.2.10:6443 --token-file join-token

  # With a name, labels and a runtime of its own
  everynode agent --server https://192.0.2.10:6443 --token-file join-token \
    --node-name edge-7 --node-labels disktype=ssd,zone=a \
    --runtime-endpoint unix:///run/crio/crio.sock`,
		Args: noArguments,
	}
	fs := cmd.Flags()
	fs.StringVar(&o.Server, "server", "", "URL of the API server, https://HOST:PORT")
	fs.StringVar(&o.TokenFile, "token-file", "", "file with the join token; not needed once this machine has joined")
	fs.StringVar(&o.DataDir, "data-dir", agent.DefaultDataDir, "where the node's identity, volumes and image archives are")
	fs.StringVar(&o.RuntimeEndpoint, "runtime-endpoint", agent.DefaultRuntimeEndpoint, "socket of the container runtime (CRI)")
	fs.StringVar(&o.CNIConfDir, "cni-conf-dir", agent.DefaultCNIConfDir, "directory from which the runtime reads its network configuration; the node's is written there")
	fs.StringVar(&o.PodManifestPath, "pod-manifest-path", "", "directory of static pods")
	fs.BoolVar(&o.ListenLoopbackOnly, "listen-loopback-only", false, "serve logs and exec to a server on this machine only")
	fs.IntVar(&o.ListenPort, "listen-port", agent.DefaultListenPort, "port on which logs and exec are served")
	fs.StringVar(&o.ClusterCIDR, "cluster-cidr", agent.DefaultClusterCIDR, "range of all pods' addresses")
	fs.StringVar(&o.APIServiceIP, "api-service-ip", agent.DefaultAPIServiceIP, "address of the Service default/kubernetes")
	for _, name := range []string{"listen-loopback-only", "cluster-cidr", "api-service-ip", "pod-manifest-path"} {
		_ = fs.MarkHidden(name) // it exists
	}
	agentFlags(fs, &o)
	verbosity := addVerbosity(fs)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := o.Validate(); err != nil {
			return asUsage(err)
		}
		if err := needRoot("agent"); err != nil {
			return err
		}
		if err := setLogging(*verbosity); err != nil {
			return err
		}
		footprint.Tune(50, 0)
		footprint.Release(cmd.Context())
		return agent.Run(cmd.Context(), o)
	}
	return cmd
}

// agentFlags adds the flags that `agent` and `up` share.
func agentFlags(fs *pflag.FlagSet, o *agent.Options) {
	fs.StringVar(&o.NodeName, "node-name", "", "name of the node (default: the host name, in lower case)")
	fs.StringVar(&o.NodeIP, "node-ip", "", "address at which other machines reach this one (default: that of the default route)")
	fs.StringToStringVar(&o.NodeLabels, "node-labels", nil, "labels to put on the node, key=value,...")
}
