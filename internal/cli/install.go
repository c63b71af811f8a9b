package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/everynode/everynode/internal/agent"
	"github.com/everynode/everynode/internal/atomicfile"
	"github.com/everynode/everynode/internal/cli/containerd"
	"github.com/everynode/everynode/internal/cli/layout"
	"github.com/everynode/everynode/internal/cli/server"
	"github.com/everynode/everynode/internal/cli/systemd"
)

// installedProgram is where the services find everynode: a path that survives the clone or the
// download it was installed from.
const installedProgram = "/usr/local/bin/everynode"

func newInstall() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "install",
		GroupID: "machine",
		Short:   "Run the server or the agent as a systemd service, from now on and after every boot",
		Long: `Run a part of everynode as a systemd service: write its unit, have it started at every boot,
start it, and wait until it is ready.

The program is copied to ` + installedProgram + `. Installed again with another build or
other flags, the service is restarted with them; containers keep running, as they do through
every stop and upgrade of the service. Installed again with the same, nothing changes.`,
		Example: `  everynode install server --listen 192.0.2.10:6443
  everynode install agent --server https://192.0.2.10:6443 --token-file join-token`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newInstallServer(), newInstallAgent())
	return cmd
}

func newInstallServer() *cobra.Command {
	var o server.Options
	var in installation
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run the control plane as a systemd service",
		Long: `Run the control plane as a systemd service; the flags are those of "everynode server".

When it is ready, the command with which a machine becomes a node is printed.`,
		Example: "  everynode install server --listen 192.0.2.10:6443",
		Args:    noArguments,
	}
	addServerFlags(cmd.Flags(), &o)
	in.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		for _, path := range []*string{&o.DataDir, &o.EtcdCAFile, &o.EtcdCertFile, &o.EtcdKeyFile} {
			if err := absolute(path); err != nil {
				return err
			}
		}
		if err := o.Validate(); err != nil {
			return asUsage(err)
		}
		return in.run(cmd, "server", func(ctx context.Context, out io.Writer) error {
			l, err := layout.New(o.DataDir, "")
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "  kubeconfig  %s\n", l.AdminKubeconfig())
			return joinHint(out, l, &o)
		})
	}
	return cmd
}

// joinHint prints how a machine joins this server.
func joinHint(out io.Writer, l layout.Layout, o *server.Options) error {
	url, err := o.URL()
	if err != nil {
		return err
	}
	host, _, _ := net.SplitHostPort(o.Listen) // validated
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		fmt.Fprintln(out, "  join        the server listens on this machine only; install it again with --listen ADDRESS:PORT to let others join")
		return nil
	}
	token, err := os.ReadFile(l.JoinToken())
	if err != nil {
		return fmt.Errorf("the join token: %w; `everynode token create` makes one", err)
	}
	fmt.Fprintf(out, "  join        on another machine, as root, with this everynode:\n"+
		"                echo %s > join-token\n                everynode install agent --server %s --token-file join-token\n", strings.TrimSpace(string(token)), url)
	return nil
}

func newInstallAgent() *cobra.Command {
	var o agent.Options
	var in installation
	var skipPackages bool
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run a node as a systemd service",
		Long: `Run a node as a systemd service; the flags are those of "everynode agent".

What the node needs and this machine lacks (containerd, runc, the CNI plugins, iptables) is
installed from Debian's packages first; elsewhere, or with --skip-packages, it is named. The join
token is copied to the data directory; its file may go.`,
		Example: "  everynode install agent --server https://192.0.2.10:6443 --token-file join-token",
		Args:    noArguments,
	}
	configFile := addAgentFlags(cmd.Flags(), &o)
	cmd.Flags().BoolVar(&skipPackages, "skip-packages", false, "do not install packages, only name those that are missing")
	in.own = append(in.own, "skip-packages")
	in.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := absolute(configFile); err != nil {
			return err
		}
		if err := configure(cmd.Flags(), &o, *configFile); err != nil {
			return err
		}
		if err := o.Validate(); err != nil {
			return asUsage(err)
		}
		in.before = func(ctx context.Context, out io.Writer) error {
			// Another runtime was made ready by whoever named it.
			if o.RuntimeEndpoint == agent.DefaultRuntimeEndpoint {
				if err := providePackages(ctx, out, skipPackages); err != nil {
					return err
				}
			}
			return keepToken(cmd.Flags(), &o)
		}
		return in.run(cmd, "agent", func(_ context.Context, out io.Writer) error {
			fmt.Fprintf(out, "  see it      everynode kubectl get nodes, where the server runs\n")
			return nil
		})
	}
	return cmd
}

// keepToken copies the join token to where the service finds it after a boot: the given file may
// be anywhere, and is needed again only if the join has not happened by then.
func keepToken(fs *pflag.FlagSet, o *agent.Options) error {
	if o.TokenFile == "" {
		return nil
	}
	token, err := os.ReadFile(o.TokenFile)
	if err != nil {
		return fmt.Errorf("--token-file: %w", err)
	}
	dir := filepath.Join(o.DataDir, "agent")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("--data-dir: %w", err)
	}
	kept := filepath.Join(dir, "join-token")
	if _, err := atomicfile.WriteIfChanged(kept, token); err != nil {
		return err
	}
	return fs.Set("token-file", kept)
}

// providePackages installs what a node needs, or names it.
func providePackages(ctx context.Context, out io.Writer, skip bool) error {
	_, err := containerd.FindTools()
	var missing *containerd.MissingError
	if !errors.As(err, &missing) {
		return err
	}
	aptGet, noApt := exec.LookPath("apt-get")
	if skip || noApt != nil {
		return err
	}
	fmt.Fprintf(out, "installing %s\n", strings.Join(missing.Packages, " "))
	for _, args := range [][]string{{"update"}, append([]string{"install", "-y", "--no-install-recommends"}, missing.Packages...)} {
		cmd := exec.CommandContext(ctx, aptGet, args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if said, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w:\n%s", args[0], err, lastLines(string(said), logLines))
		}
	}
	return nil
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// installation is what both roles share.
type installation struct {
	timeout time.Duration
	// own are the flags of the command itself, which the service does not know.
	own    []string
	before func(context.Context, io.Writer) error
}

func (in *installation) flags(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&in.timeout, "timeout", 2*time.Minute, "how long to wait for the service to be ready")
	in.own = append(in.own, "timeout")
}

func (in *installation) run(cmd *cobra.Command, role string, ready func(context.Context, io.Writer) error) error {
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	if err := needRoot("install " + role); err != nil {
		return err
	}
	manager, err := systemd.New()
	if err != nil {
		return fmt.Errorf("install: %w; have whatever does run `everynode %s` with the same flags", err, role)
	}
	if in.before != nil {
		if err := in.before(ctx, out); err != nil {
			return fmt.Errorf("install: %w", err)
		}
	}
	replaced, err := installProgram(installedProgram)
	if err != nil {
		return fmt.Errorf("install: %w", err)
	}
	service := systemd.Service{Role: role, Program: installedProgram, Args: serviceArgs(cmd.Flags(), in.own)}
	changed, err := manager.Install(ctx, service, replaced)
	if err != nil {
		return fmt.Errorf("install: %w", err)
	}
	if changed {
		fmt.Fprintf(out, "%s starts, now and at every boot\n", systemd.Name(role))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, in.timeout, fmt.Errorf("not ready after %s", in.timeout))
	defer cancel()
	if err := manager.Await(ctx, role); err != nil {
		return fmt.Errorf("install: %w", err)
	}
	if changed {
		fmt.Fprintf(out, "%s is ready\n", systemd.Name(role))
	} else {
		fmt.Fprintf(out, "%s is ready already; nothing changed\n", systemd.Name(role))
	}
	return ready(ctx, out)
}

// serviceArgs writes the flags that were given, without the command's own, as the service is to
// get them.
func serviceArgs(fs *pflag.FlagSet, own []string) []string {
	skip := map[string]bool{}
	for _, name := range own {
		skip[name] = true
	}
	var args []string
	fs.Visit(func(f *pflag.Flag) {
		if skip[f.Name] {
			return
		}
		value := f.Value.String()
		if strings.HasPrefix(f.Value.Type(), "string") && f.Value.Type() != "string" {
			value = strings.TrimSuffix(strings.TrimPrefix(value, "["), "]") // lists and maps are shown in brackets
		}
		args = append(args, "--"+f.Name+"="+value)
	})
	return args
}

// absolute makes a path that was given independent of where it was typed.
func absolute(path *string) error {
	if *path == "" {
		return nil
	}
	abs, err := filepath.Abs(*path)
	*path = abs
	return err
}

// installProgram copies the running program to path, and says whether that changed anything.
// The old file is replaced, never written to: it may be running.
func installProgram(path string) (bool, error) {
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	same, err := sameContent(self, path)
	if same || err != nil {
		return false, err
	}
	from, err := os.Open(self)
	if err != nil {
		return false, err
	}
	defer func() { _ = from.Close() }()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, err
	}
	next := path + ".new"
	to, err := os.OpenFile(next, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return false, err
	}
	_, err = io.Copy(to, from)
	if err = errors.Join(err, to.Sync(), to.Close()); err != nil {
		return false, errors.Join(err, os.Remove(next))
	}
	return true, os.Rename(next, path)
}

func sameContent(a, b string) (bool, error) {
	infoA, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	infoB, err := os.Stat(b)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil || os.SameFile(infoA, infoB) {
		return err == nil, err
	}
	if infoA.Size() != infoB.Size() {
		return false, nil
	}
	contentA, errA := os.ReadFile(a)
	contentB, errB := os.ReadFile(b)
	return bytes.Equal(contentA, contentB), errors.Join(errA, errB)
}
