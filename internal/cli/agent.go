package cli

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/everynode/everynode/internal/agent"
	"github.com/everynode/everynode/internal/agent/config"
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
	configFile := addAgentFlags(fs, &o)
	verbosity := addVerbosity(fs)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := configure(fs, &o, *configFile); err != nil {
			return err
		}
		if err := o.Validate(); err != nil {
			return asUsage(err)
		}
		if err := needRoot("agent"); err != nil {
			return err
		}
		if err := setLogging(*verbosity); err != nil {
			return err
		}
		footprint.Tune(30, 0)
		footprint.Settle(cmd.Context())
		return agent.Run(cmd.Context(), o)
	}
	return cmd
}

// addAgentFlags adds the flags of a node that runs alone, and returns where the name of the
// configuration file is to be.
func addAgentFlags(fs *pflag.FlagSet, o *agent.Options) (configFile *string) {
	fs.StringVar(&o.Server, "server", "", "URL of the API server, https://HOST:PORT")
	fs.StringVar(&o.TokenFile, "token-file", "", "file with the join token; not needed once this machine has joined")
	fs.StringVar(&o.DataDir, "data-dir", agent.DefaultDataDir, "where the node's identity, volumes and image archives are")
	fs.StringVar(&o.RuntimeEndpoint, "runtime-endpoint", agent.DefaultRuntimeEndpoint, "socket of the container runtime (CRI)")
	fs.StringVar(&o.CNIConfDir, "cni-conf-dir", agent.DefaultCNIConfDir, "directory from which the runtime reads its network configuration; the node's is written there")
	fs.BoolVar(&o.ListenLoopbackOnly, "listen-loopback-only", false, "serve logs and exec to a server on this machine only")
	fs.IntVar(&o.ListenPort, "listen-port", agent.DefaultListenPort, "port on which logs and exec are served")
	fs.StringVar(&o.ClusterCIDR, "cluster-cidr", agent.DefaultClusterCIDR, "range of all pods' addresses")
	fs.StringVar(&o.APIServiceIP, "api-service-ip", agent.DefaultAPIServiceIP, "address of the Service default/kubernetes")
	for _, name := range []string{"listen-loopback-only", "cluster-cidr", "api-service-ip"} {
		_ = fs.MarkHidden(name) // it exists
	}
	return agentFlags(fs, o)
}

// agentFlags adds the flags that `agent` and `up` share, and returns where the name of the
// configuration file is to be.
func agentFlags(fs *pflag.FlagSet, o *agent.Options) (configFile *string) {
	fs.StringVar(&o.NodeName, "node-name", "", "name of the node (default: the host name, in lower case)")
	fs.StringVar(&o.NodeIP, "node-ip", "", "address at which other machines reach this one (default: that of the default route)")
	fs.StringToStringVar(&o.NodeLabels, "node-labels", nil, "labels to put on the node, key=value,...")
	fs.StringVar(&o.PodManifestPath, "pod-manifest-path", agent.DefaultPodManifestPath, "directory of static pods, which need no server; it may be missing, and \"\" is none")
	fs.BoolVar(&o.OfflinePods, "offline-pods", true, "remember the pods of DaemonSets, with their ConfigMaps and Secrets (encrypted), and run them after a reboot even if no server answers")
	fs.StringToStringVar(&o.Upkeep.SystemReserved, "system-reserved", nil, "what the system keeps from pods, like cpu=500m,memory=500Mi,ephemeral-storage=1Gi,pid=1000")
	fs.StringToStringVar(&o.Upkeep.KubeReserved, "kube-reserved", nil, "the same, for the node agent and the container runtime")
	for _, name := range []string{"system-reserved", "kube-reserved"} {
		_ = fs.MarkHidden(name) // it exists
	}
	return fs.String("config", "", "file with settings of the node (kind: AgentConfiguration); flags that are given override it")
}

// configure reads the configuration file, if there is one, into the options.
func configure(fs *pflag.FlagSet, o *agent.Options, file string) error {
	if file == "" {
		return nil
	}
	c, err := config.Load(file)
	if err != nil {
		return asUsage(err)
	}
	o.Configure(c, fs.Changed)
	return nil
}

// passedOn are the agent's flags that `up` hands to it only if they were given: where they were
// not, the configuration file has the say, also when it changes later.
func passedOn(fs *pflag.FlagSet, configFile string) ([]string, error) {
	var args []string
	if configFile != "" {
		file, err := filepath.Abs(configFile)
		if err != nil {
			return nil, fmt.Errorf("--config: %w", err)
		}
		args = append(args, "--config", file)
	}
	for _, name := range []string{"pod-manifest-path", "offline-pods", "system-reserved", "kube-reserved"} {
		if f := fs.Lookup(name); f.Changed {
			args = append(args, "--"+name+"="+strings.Trim(f.Value.String(), "[]"))
		}
	}
	return args, nil
}
