package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/everynode/everynode/internal/agent"
	"github.com/everynode/everynode/internal/agent/network"
	"github.com/everynode/everynode/internal/cli/layout"
	"github.com/everynode/everynode/internal/cli/systemd"
	"github.com/everynode/everynode/internal/cli/teardown"
)

const uninstallTimeout = 5 * time.Minute

func newUninstall() *cobra.Command {
	var purge bool
	cmd := &cobra.Command{
		Use:     "uninstall [server|agent]",
		GroupID: "machine",
		Short:   "Stop and remove what install made",
		Long: `Stop the systemd service of a role, or of both, and remove its unit. With the agent go its
pods, their volumes, mounts, cgroups and network; the container runtime stays.

The data stays, and installing again goes on with it. With --purge it goes too.`,
		Example:   "  everynode uninstall agent\n  everynode uninstall --purge",
		ValidArgs: []string{"server", "agent"},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 || len(args) == 1 && args[0] != "server" && args[0] != "agent" {
				return usagef("uninstall: %q: must be server, agent, or nothing for both", strings.Join(args, " "))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&purge, "purge", false, "remove the data too")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := needRoot("uninstall"); err != nil {
			return err
		}
		if err := setLogging(0); err != nil {
			return err
		}
		manager, err := systemd.New()
		if err != nil {
			return fmt.Errorf("uninstall: %w, so nothing was installed here", err)
		}
		roles := args
		if len(roles) == 0 {
			roles = []string{"agent", "server"} // pods say goodbye while the server hears it
		}
		// The first Ctrl-C must not leave half a machine behind.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), uninstallTimeout)
		defer cancel()
		if err := uninstall(ctx, cmd.OutOrStdout(), manager, roles, purge); err != nil {
			return fmt.Errorf("uninstall: %w", err)
		}
		return nil
	}
	return cmd
}

func uninstall(ctx context.Context, out io.Writer, manager *systemd.Manager, roles []string, purge bool) error {
	dataDirs := map[string]bool{}
	for _, role := range roles {
		service, there, err := manager.Installed(role)
		if err != nil {
			return err
		}
		if _, err := manager.Uninstall(ctx, role); err != nil {
			return err
		}
		if !there {
			fmt.Fprintf(out, "%s is not installed\n", systemd.Name(role))
			continue
		}
		fmt.Fprintf(out, "%s is stopped and removed\n", systemd.Name(role))
		dataDirs[service.Flag("data-dir", layout.DefaultDataDir)] = true
		if role == "agent" {
			if err := removeNode(ctx, out, service); err != nil {
				return err
			}
		}
	}
	return removeData(out, manager, dataDirs, purge)
}

// serviceLayout is that of a service's data. Its runtime is somebody else's, and so is the run
// directory of an "everynode up"; this one names what does not exist.
func serviceLayout(dataDir string) (layout.Layout, error) {
	return layout.New(dataDir, filepath.Join(dataDir, "run"))
}

// removeNode removes what the agent of a service made on this machine.
func removeNode(ctx context.Context, out io.Writer, service systemd.Service) error {
	l, err := serviceLayout(service.Flag("data-dir", agent.DefaultDataDir))
	if err != nil {
		return err
	}
	pods, podsErr := teardown.PodsOf(ctx, l, service.Flag("runtime-endpoint", agent.DefaultRuntimeEndpoint))
	if pods > 0 {
		fmt.Fprintf(out, "removed the pods of this node: %d\n", pods)
	}
	host, _ := os.Hostname() // without a name there is nothing by it either
	name := service.Flag("node-name", strings.ToLower(host))
	_, sweepErr := teardown.Sweep(l, name)
	networkErr := network.Cleanup(ctx, service.Flag("cni-conf-dir", agent.DefaultCNIConfDir))
	if err := errors.Join(podsErr, sweepErr, networkErr); err != nil {
		return err
	}
	fmt.Fprintf(out, "the server still knows the node; there: everynode kubectl delete node %s\n", name)
	return nil
}

// removeData removes data directories that no service of ours uses any more.
func removeData(out io.Writer, manager *systemd.Manager, dirs map[string]bool, purge bool) error {
	for _, role := range []string{"agent", "server"} {
		if service, there, err := manager.Installed(role); there && err == nil {
			dir := service.Flag("data-dir", layout.DefaultDataDir)
			if dirs[dir] && purge {
				fmt.Fprintf(out, "%s stays: %s uses it too\n", dir, systemd.Name(role))
			}
			delete(dirs, dir)
		}
	}
	for dir := range dirs {
		if !purge {
			fmt.Fprintf(out, "the data stays in %s\n", dir)
			continue
		}
		l, err := serviceLayout(dir)
		if err != nil {
			return err
		}
		if err := teardown.Purge(l); err != nil {
			return err
		}
		fmt.Fprintf(out, "removed %s and the pods' logs\n", dir)
	}
	return nil
}
