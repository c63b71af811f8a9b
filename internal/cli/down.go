package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/everynode/everynode/internal/agent/network"
	"github.com/everynode/everynode/internal/cli/layout"
	"github.com/everynode/everynode/internal/cli/supervise"
	"github.com/everynode/everynode/internal/cli/teardown"
)

// downTimeout bounds everything that `down` does.
const downTimeout = 90 * time.Second

func newDown() *cobra.Command {
	var dataDir, runDir string
	var purge bool
	cmd := &cobra.Command{
		Use:     "down",
		GroupID: "machine",
		Short:   "Stop what `up` started and leave nothing running; the data stays",
		Long: `Stop the server, the agent, all pods of this node and containerd, and remove what they made
on this machine: processes, mounts, network, cgroups. The data stays, and "everynode up" brings
everything back. With --purge the data, the images and the pods' logs go too, without asking.

It is safe to run at any time: where nothing runs it removes what a crash has left.`,
		Example: `  everynode down
  everynode down --purge`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needRoot("down"); err != nil {
				return err
			}
			l, err := layout.New(dataDir, runDir)
			if err != nil {
				return asUsage(err)
			}
			// A second Ctrl-C ends it; the first one must not leave half a machine behind.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), downTimeout)
			defer cancel()
			return down(ctx, cmd.OutOrStdout(), l, purge)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&dataDir, "data-dir", layout.DefaultDataDir, "the --data-dir of `everynode up`")
	fs.StringVar(&runDir, "run-dir", layout.DefaultRunDir, "the --run-dir of `everynode up`")
	_ = fs.MarkHidden("run-dir") // it exists
	fs.BoolVar(&purge, "purge", false, "remove the data too")
	return cmd
}

func down(ctx context.Context, out io.Writer, l layout.Layout, purge bool) error {
	if err := setLogging(0); err != nil {
		return err
	}
	client := supervise.NewClient(l)
	running, err := client.Status(ctx)
	if err != nil && !errors.Is(err, supervise.ErrNotRunning) {
		return fmt.Errorf("down: %w", err)
	}
	if running != nil && running.Spec.Layout.DataDir != l.DataDir {
		return fmt.Errorf("down: what runs has its data in %s, not %s; give --data-dir %s", running.Spec.Layout.DataDir, l.DataDir, running.Spec.Layout.DataDir)
	}
	if running != nil {
		if err := client.Stop(ctx, supervise.Containerd); err != nil {
			return fmt.Errorf("down: %w", err)
		}
		fmt.Fprintln(out, "stopped the agent and the server")
	}
	pods, podsErr := teardown.Pods(ctx, l)
	if pods > 0 {
		fmt.Fprintf(out, "removed the pods of this node: %d\n", pods)
	}
	if running != nil {
		if err := client.Stop(ctx, ""); err != nil && !errors.Is(err, supervise.ErrNotRunning) {
			return fmt.Errorf("down: %w", errors.Join(podsErr, err))
		}
		fmt.Fprintln(out, "stopped containerd")
	}
	removed, err := sweep(ctx, l)
	if err != nil {
		return fmt.Errorf("down: %w", errors.Join(podsErr, err))
	}
	if podsErr != nil { // the sweep took what was left of them
		fmt.Fprintf(out, "some pods did not stop by themselves: %v\n", podsErr)
	}
	if running == nil && pods == 0 && len(removed) == 0 {
		fmt.Fprintln(out, "nothing was running")
	} else if len(removed) > 0 {
		fmt.Fprintf(out, "removed what was left of them: %s\n", strings.Join(removed, ", "))
	}
	if !purge {
		if _, err := os.Stat(l.AdminKubeconfig()); err == nil {
			fmt.Fprintf(out, "the data stays in %s; `everynode up` brings everything back, `everynode down --purge` removes it\n", l.DataDir)
		}
		return nil
	}
	if err := teardown.Purge(l); err != nil {
		return fmt.Errorf("down: %w", err)
	}
	fmt.Fprintf(out, "removed %s and the pods' logs\n", l.DataDir)
	return nil
}

// sweep removes what no process is needed for.
func sweep(ctx context.Context, l layout.Layout) ([]string, error) {
	removed, err := teardown.Sweep(l, nodeName(l))
	return removed, errors.Join(err, network.Cleanup(ctx, l.CNIConf()))
}

// nodeName is that of the last `up` here, or what it would be.
func nodeName(l layout.Layout) string {
	if spec, err := supervise.ReadSpec(l); err == nil {
		return spec.NodeName
	}
	host, _ := os.Hostname() // without a name there is nothing by it either
	return strings.ToLower(host)
}
