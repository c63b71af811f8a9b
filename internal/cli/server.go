package cli

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/everynode/everynode/internal/cli/footprint"
	"github.com/everynode/everynode/internal/cli/layout"
	"github.com/everynode/everynode/internal/cli/server"
)

func newServer() *cobra.Command {
	var o server.Options
	cmd := &cobra.Command{
		Use:     "server",
		GroupID: "parts",
		Short:   "Run the control plane: API server, controllers, scheduler, and etcd unless another is named",
		Long: `Run the control plane in the foreground: API server, controllers and scheduler.

The data lies in --data-dir, in an etcd inside this process. With --etcd-endpoints it lies in
that etcd cluster, and any number of servers may share it; one of them at a time runs the
controllers and the scheduler.

Once it is ready it has written DIR/admin.kubeconfig, for kubectl, and DIR/join-token, for other
machines to join with. A server on a loopback address is for this machine only.`,
		Example: `  # A server that other machines can join
  everynode server --listen 192.0.2.10:6443

  # One of several servers over an etcd cluster
  everynode server --listen 192.0.2.10:6443 \
    --etcd-endpoints https://192.0.2.1:2379,https://192.0.2.2:2379,https://192.0.2.3:2379 \
    --etcd-cafile ca.crt --etcd-certfile client.crt --etcd-keyfile client.key`,
		Args: noArguments,
	}
	addServerFlags(cmd.Flags(), &o)
	verbosity := addVerbosity(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := o.Validate(); err != nil {
			return asUsage(err)
		}
		if err := setLogging(*verbosity); err != nil {
			return err
		}
		footprint.Pace(cmd.Context(), footprint.Room{Quiet: 50, Busy: 200, BusyMiB: 576})
		return server.Run(cmd.Context(), o)
	}
	return cmd
}

// addServerFlags adds the flags of a control plane that runs alone.
func addServerFlags(fs *pflag.FlagSet, o *server.Options) {
	serverFlags(fs, o)
	fs.StringVar(&o.DataDir, "data-dir", layout.DefaultDataDir, "where the data, the keys, admin.kubeconfig and join-token are")
	fs.StringSliceVar(&o.AlsoListen, "also-listen", nil, "further ADDRESS:PORT, which may appear later")
	fs.StringVar(&o.AdvertiseAddress, "advertise-address", "", "address at which nodes and pods reach this server (default: that of --listen)")
	_ = fs.MarkHidden("also-listen") // it exists
}

// serverFlags adds the flags that `server` and `up` share.
func serverFlags(fs *pflag.FlagSet, o *server.Options) {
	fs.StringVar(&o.Listen, "listen", server.DefaultListen, "ADDRESS:PORT to serve on; 0.0.0.0 stands for all addresses")
	fs.StringSliceVar(&o.EtcdEndpoints, "etcd-endpoints", nil, "URLs of an etcd cluster to use instead of the embedded one")
	fs.StringVar(&o.EtcdCAFile, "etcd-cafile", "", "CA that signed the certificates of the etcd cluster")
	fs.StringVar(&o.EtcdCertFile, "etcd-certfile", "", "client certificate for the etcd cluster")
	fs.StringVar(&o.EtcdKeyFile, "etcd-keyfile", "", "key of the client certificate")
	fs.StringVar(&o.ClusterCIDR, "cluster-cidr", server.DefaultClusterCIDR, "range of the pods' addresses")
	fs.StringVar(&o.ServiceCIDR, "service-cidr", server.DefaultServiceCIDR, "range of the services' addresses")
	fs.IntVar(&o.NodeCIDRMaskSize, "node-cidr-mask-size", server.DefaultNodeCIDRMaskSize, "size of each node's part of --cluster-cidr, as a prefix length")
	fs.DurationVar(&o.NodeMonitorGracePeriod, "node-monitor-grace-period", server.DefaultNodeMonitorGracePeriod, "how long a node may be silent before it counts as not ready")
	fs.StringVar(&o.AuditLogPath, "audit-log-path", "", "file for the audit log; none if empty, - for standard output")
}
