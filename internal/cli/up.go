package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/everynode/everynode/internal/agent"
	"github.com/everynode/everynode/internal/cli/containerd"
	"github.com/everynode/everynode/internal/cli/layout"
	"github.com/everynode/everynode/internal/cli/server"
	"github.com/everynode/everynode/internal/cli/supervise"
)

const (
	upPoll = 50 * time.Millisecond
	// lastBreath is how long a killed process may still hold its address.
	lastBreath = 3 * time.Second
	// giveUpAfter is how often a process may end before it was ever ready.
	giveUpAfter = 3
	logLines    = 15
)

type upOptions struct {
	dataDir, runDir string
	server          server.Options
	agent           agent.Options
	// passed are flags that go to the agent as they were given.
	passed    []string
	timeout   time.Duration
	verbosity int
}

func newUp() *cobra.Command {
	var o upOptions
	cmd := &cobra.Command{
		Use:     "up",
		GroupID: "machine",
		Short:   "Run everynode on this machine: server, agent and a containerd of its own",
		Long: `Run everynode on this machine and keep it running: a server, an agent and a containerd of its
own, each a process that is started again when it ends. The command returns when the node is
ready. Run again, it changes nothing and says so.

By default nobody but this machine can reach the server. With --node-ip, an address of this
machine that others reach, the server listens there and other machines can join; the command
with which they do is printed.`,
		Example: `  everynode up
  everynode kubectl get nodes

  # Let other machines join
  everynode up --node-ip 192.0.2.10

  # Data on another disk, and labels for this node
  everynode up --data-dir /srv/everynode --node-labels disktype=ssd`,
		Args: noArguments,
	}
	fs := cmd.Flags()
	serverFlags(fs, &o.server)
	configFile := agentFlags(fs, &o.agent)
	fs.StringVar(&o.dataDir, "data-dir", layout.DefaultDataDir, "where all data is: the cluster's, the node's, images")
	fs.StringVar(&o.runDir, "run-dir", layout.DefaultRunDir, "where sockets and the state of running containers are")
	_ = fs.MarkHidden("run-dir") // it exists
	fs.DurationVar(&o.timeout, "timeout", 2*time.Minute, "how long to wait for the node to be ready")
	fs.IntVarP(&o.verbosity, "verbosity", "v", 0, "what the processes log, see their --help")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := configure(fs, &o.agent, *configFile); err != nil {
			return err
		}
		var err error
		if o.passed, err = passedOn(fs, *configFile); err != nil {
			return err
		}
		o.server.Listen = listenFor(o.server.Listen, fs.Changed("listen"), o.agent.NodeIP)
		return o.run(cmd.Context(), cmd.OutOrStdout())
	}
	return cmd
}

// listenFor is where the server listens: with --node-ip and no --listen, at that address. What is no address is
// reported as what is wrong with --node-ip.
func listenFor(listen string, given bool, nodeIP string) string {
	if given || net.ParseIP(nodeIP) == nil {
		return listen
	}
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen // Validate reports it
	}
	return net.JoinHostPort(nodeIP, port)
}

func (o *upOptions) run(ctx context.Context, out io.Writer) error {
	if err := needRoot("up"); err != nil {
		return err
	}
	spec, err := o.spec()
	if err != nil {
		return err
	}
	unix.Umask(0o022) // pods' volumes are made with explicit modes
	client := supervise.NewClient(spec.Layout)
	switch running, err := client.Status(ctx); {
	case err == nil && running.Spec.UpgradesTo(spec):
		return o.upgrade(ctx, out, spec, client)
	case err == nil:
		if difference := running.Spec.Difference(spec); difference != "" {
			return fmt.Errorf("up: already running, and %s; `everynode down`, then `everynode up` again (pods are stopped and come back)", difference)
		}
		return o.await(ctx, out, spec, client, "already running; nothing changed")
	case !errors.Is(err, supervise.ErrNotRunning):
		return fmt.Errorf("up: %w", err)
	}
	if err := o.preflight(spec); err != nil {
		return fmt.Errorf("up: %w", err)
	}
	fmt.Fprintf(out, "starting everynode %s, data in %s\n", version, spec.Layout.DataDir)
	return o.start(ctx, out, spec, client)
}

// upgrade exchanges the processes for those of this build. Containers belong to their shims, so
// they run on.
func (o *upOptions) upgrade(ctx context.Context, out io.Writer, spec *supervise.Spec, client *supervise.Client) error {
	fmt.Fprintf(out, "another build of everynode is running; exchanging it for %s, pods keep running\n", version)
	if err := client.Stop(ctx, ""); err != nil && !errors.Is(err, supervise.ErrNotRunning) {
		return fmt.Errorf("up: %w", err)
	}
	return o.start(ctx, out, spec, client)
}

func (o *upOptions) start(ctx context.Context, out io.Writer, spec *supervise.Spec, client *supervise.Client) error {
	if err := supervise.Start(ctx, spec); err != nil {
		return fmt.Errorf("up: %w", err)
	}
	if err := o.await(ctx, out, spec, client, ""); err != nil {
		return o.giveUp(client, err)
	}
	return nil
}

// spec validates the flags and turns them into the command lines of the processes.
func (o *upOptions) spec() (*supervise.Spec, error) {
	l, err := layout.New(o.dataDir, o.runDir)
	if err != nil {
		return nil, asUsage(err)
	}
	o.server.DataDir = l.DataDir
	if net.ParseIP(o.agent.NodeIP) != nil && o.server.AdvertiseAddress == "" && !o.loopbackOnly() {
		o.server.AdvertiseAddress = o.agent.NodeIP
	}
	if err := o.server.Validate(); err != nil {
		return nil, asUsage(err)
	}
	if o.agent.Server, err = o.server.URL(); err != nil {
		return nil, asUsage(err)
	}
	if o.agent.NodeName == "" {
		host, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("up: host name: %w; give --node-name", err)
		}
		o.agent.NodeName = strings.ToLower(host)
	}
	o.agent.DataDir, o.agent.TokenFile = l.DataDir, l.JoinToken()
	o.agent.RuntimeEndpoint, o.agent.CNIConfDir = l.RuntimeEndpoint(), l.CNIConf()
	o.agent.ListenLoopbackOnly = o.loopbackOnly()
	if err := o.agent.Validate(); err != nil {
		return nil, asUsage(err)
	}
	tools, err := containerd.FindTools()
	if err != nil {
		return nil, fmt.Errorf("up: %w", err)
	}
	build, err := supervise.BuildID()
	if err != nil {
		return nil, fmt.Errorf("up: %w", err)
	}
	return &supervise.Spec{
		Layout: l, NodeName: o.agent.NodeName, Tools: tools, BuildID: build, Debug: o.verbosity > 3,
		ServerArgs: o.serverArgs(), AgentArgs: o.agentArgs(),
	}, nil
}

// loopbackOnly tells whether the server is for this machine only.
func (o *upOptions) loopbackOnly() bool {
	host, _, err := net.SplitHostPort(o.server.Listen)
	ip := net.ParseIP(host)
	return err == nil && ip != nil && ip.IsLoopback()
}

func (o *upOptions) serverArgs() []string {
	s := &o.server
	args := []string{
		"server", "--data-dir", s.DataDir, "--listen", s.Listen,
		"--cluster-cidr", s.ClusterCIDR, "--service-cidr", s.ServiceCIDR,
		"--node-cidr-mask-size", strconv.Itoa(s.NodeCIDRMaskSize),
		"--node-monitor-grace-period", s.NodeMonitorGracePeriod.String(),
		"--verbosity", strconv.Itoa(o.verbosity),
	}
	if o.loopbackOnly() {
		// Pods on this machine reach the server at the address of their bridge.
		args = append(args, "--also-listen", net.JoinHostPort(address(s.ClusterCIDR, 1), port(s.Listen)))
	}
	for _, optional := range [][2]string{
		{"--advertise-address", s.AdvertiseAddress}, {"--audit-log-path", s.AuditLogPath},
		{"--etcd-endpoints", strings.Join(s.EtcdEndpoints, ",")},
		{"--etcd-cafile", s.EtcdCAFile}, {"--etcd-certfile", s.EtcdCertFile}, {"--etcd-keyfile", s.EtcdKeyFile},
	} {
		if optional[1] != "" {
			args = append(args, optional[:]...)
		}
	}
	return args
}

func (o *upOptions) agentArgs() []string {
	a := &o.agent
	args := []string{
		"agent", "--server", a.Server, "--token-file", a.TokenFile, "--node-name", a.NodeName, "--data-dir", a.DataDir,
		"--runtime-endpoint", a.RuntimeEndpoint, "--cni-conf-dir", a.CNIConfDir,
		"--cluster-cidr", o.server.ClusterCIDR, "--api-service-ip", address(o.server.ServiceCIDR, 1),
		"--verbosity", strconv.Itoa(o.verbosity),
	}
	args = append(args, o.passed...)
	if a.NodeIP != "" {
		args = append(args, "--node-ip", a.NodeIP)
	}
	if a.ListenLoopbackOnly {
		args = append(args, "--listen-loopback-only")
	}
	labels := make([]string, 0, len(a.NodeLabels))
	for key, value := range a.NodeLabels {
		labels = append(labels, key+"="+value)
	}
	if len(labels) > 0 {
		sort.Strings(labels)
		args = append(args, "--node-labels", strings.Join(labels, ","))
	}
	return args
}

// preflight finds what would stop a process from starting, before anything is started.
func (o *upOptions) preflight(spec *supervise.Spec) error {
	if err := os.MkdirAll(spec.Layout.DataDir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w; give another --data-dir", err)
	}
	for _, dir := range []string{filepath.Join(spec.Layout.DataDir, "images"), spec.Layout.RunDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	agentListen := net.JoinHostPort("127.0.0.1", strconv.Itoa(agent.DefaultListenPort))
	return errors.Join(
		free("the server", o.server.Listen, "another address with --listen"),
		free("the agent", agentListen, "stop what uses it, perhaps a kubelet or another everynode agent"),
	)
}

// free checks that an address can be listened on. One that is taken is given a moment: a process
// of an earlier `up` that was killed may still be on its way out.
func free(who, address, remedy string) error {
	listener, err := net.Listen("tcp", address)
	for deadline := time.Now().Add(lastBreath); errors.Is(err, unix.EADDRINUSE) && time.Now().Before(deadline); {
		time.Sleep(upPoll)
		listener, err = net.Listen("tcp", address)
	}
	if err == nil {
		return listener.Close()
	}
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("%s cannot listen on %s: something else does (`ss -ltnp` names it); %s", who, address, remedy)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("%s cannot listen on %s: it is no address of this machine (see `ip address`); %s", who, address, remedy)
	}
	return fmt.Errorf("%s cannot listen on %s: %w; %s", who, address, err, remedy)
}

// await follows the processes until all are ready, telling about each that has come so far.
// With a headline it is printed instead of the progress, if there is none to make.
func (o *upOptions) await(ctx context.Context, out io.Writer, spec *supervise.Spec, client *supervise.Client, headline string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("not ready after %s", o.timeout))
	defer cancel()
	began := time.Now()
	told := map[string]bool{}
	for {
		st, err := client.Status(ctx)
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("up: %w; it said:\n%s", err, supervise.Tail(spec.Layout.Log("supervisor"), logLines))
		}
		if err == nil {
			done, err := progress(out, st, told, began, headline)
			if err != nil {
				return err
			}
			if done {
				o.epilogue(out, spec)
				return nil
			}
		}
		select {
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), context.Canceled) {
				return errInterrupted
			}
			return fmt.Errorf("up: %w", errors.Join(context.Cause(ctx), slowest(st)))
		case <-time.After(upPoll):
		}
	}
}

// progress tells once about each process that has become ready. It returns an error for one that
// does not live long enough to.
func progress(out io.Writer, st *supervise.Status, told map[string]bool, began time.Time, headline string) (done bool, err error) {
	ready := 0
	for _, c := range st.Components {
		if c.State == supervise.Ready {
			ready++
		}
		if c.State == supervise.Ready && !told[c.Name] {
			told[c.Name] = true
			if headline == "" {
				fmt.Fprintf(out, "  %-10s ready after %.1fs\n", c.Name, time.Since(began).Seconds())
			}
		}
		if !c.EverReady && c.Restarts >= giveUpAfter {
			return false, fmt.Errorf("up: %s does not start: %s; the end of %s:\n%s", c.Name, c.LastError, c.Log, supervise.Tail(c.Log, logLines))
		}
	}
	if ready == len(st.Components) && headline != "" {
		fmt.Fprintln(out, headline)
	}
	return ready == len(st.Components), nil
}

// slowest is why the first process that is not ready is not.
func slowest(st *supervise.Status) error {
	if st == nil {
		return nil
	}
	for _, c := range st.Components {
		if c.State != supervise.Ready {
			return fmt.Errorf("%s is %s: %s; the end of %s:\n%s", c.Name, c.State, c.LastError, c.Log, supervise.Tail(c.Log, logLines))
		}
	}
	return nil
}

var errInterrupted = errors.New("up: interrupted")

// giveUp leaves no half of an installation behind: what was started is stopped again.
func (o *upOptions) giveUp(client *supervise.Client, cause error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := client.Stop(ctx, ""); err != nil && !errors.Is(err, supervise.ErrNotRunning) {
		return errors.Join(cause, err)
	}
	return fmt.Errorf("%w\nstopped again; `everynode up` tries anew, `everynode down` removes what it left", cause)
}

// epilogue says what the user has now.
func (o *upOptions) epilogue(out io.Writer, spec *supervise.Spec) {
	l := spec.Layout
	fmt.Fprintf(out, "\nnode %s is ready\n  kubeconfig  %s (everynode kubectl uses it by itself)\n", spec.NodeName, l.AdminKubeconfig())
	if o.loopbackOnly() {
		fmt.Fprintf(out, "  join        the server listens on this machine only; to let others join, here:\n"+
			"                everynode down && everynode up --node-ip %s\n"+
			"              and then, on another machine, as root, with containerd running and this everynode installed:\n%s",
			exampleAddress(), o.joinCommand(l, exampleAddress()))
		return
	}
	fmt.Fprintf(out, "  join        on another machine, as root, with containerd running and this everynode installed:\n%s", o.joinCommand(l, o.joinHost()))
}

// joinCommand is what to type on another machine, token included: it is there to be copied.
func (o *upOptions) joinCommand(l layout.Layout, host string) string {
	token, err := os.ReadFile(l.JoinToken())
	if err != nil {
		return "                (no join token: `everynode token create` makes one)\n"
	}
	return fmt.Sprintf("                echo %s > join-token\n                everynode agent --server %s --token-file join-token\n",
		strings.TrimSpace(string(token)), "https://"+net.JoinHostPort(host, port(o.server.Listen)))
}

// joinHost is the address at which other machines reach the server.
func (o *upOptions) joinHost() string {
	host, _, _ := net.SplitHostPort(o.server.Listen) // validated
	switch {
	case o.server.AdvertiseAddress != "":
		return o.server.AdvertiseAddress
	case net.ParseIP(host).IsUnspecified():
		return exampleAddress()
	}
	return host
}

// exampleAddress is the address of this machine that others most likely reach.
func exampleAddress() string {
	conn, err := net.Dial("udp", "192.0.2.1:9") // sends nothing: it only asks for the route
	if err != nil {
		return "192.0.2.10"
	}
	defer func() { _ = conn.Close() }()
	return conn.LocalAddr().(*net.UDPAddr).IP.String()
}

// address is the nth address of a range that was validated.
func address(cidr string, n byte) string {
	_, r, err := net.ParseCIDR(cidr)
	if err != nil {
		return ""
	}
	ip := r.IP.To4()
	return net.IPv4(ip[0], ip[1], ip[2], ip[3]+n).String()
}

func port(listen string) string {
	_, p, _ := net.SplitHostPort(listen) // validated
	return p
}
