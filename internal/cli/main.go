package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/everynode/everynode/internal/cli/layout"
)

// Exit codes of every command but kubectl, which has its own.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

// Main runs the command that args (the whole command line, program name first) name, and returns
// the exit code. Called through a link of that name, "kubectl" is kubectl, and "kubectl-everynode" is
// the plugin with which kubectl gains `kubectl everynode why`.
func Main(args []string) int {
	root := newRoot
	switch filepath.Base(args[0]) {
	case "kubectl":
		return runKubectl(layout.DefaultDataDir, args[1:])
	case "kubectl-everynode":
		root = newPlugin
	}
	// Started through /proc/self/exe, a process would be called "exe" in ps and top.
	_ = os.WriteFile("/proc/self/comm", []byte("everynode"), 0)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return runRoot(ctx, root(), args[1:], os.Stdout, os.Stderr)
}

func run(ctx context.Context, args []string, out, errOut io.Writer) int {
	return runRoot(ctx, newRoot(), args, out, errOut)
}

func runRoot(ctx context.Context, root *cobra.Command, args []string, out, errOut io.Writer) int {
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errOut)
	cmd, err := root.ExecuteContextC(ctx)
	return report(errOut, cmd, err)
}

// report prints an error as `everynode: what: why; what to do` and picks the exit code.
func report(w io.Writer, cmd *cobra.Command, err error) int {
	var code exitCode
	var usage *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &usage):
		fmt.Fprintf(w, "everynode: %s\nSee `%s --help`.\n", indent(err), cmd.CommandPath())
		return exitUsage
	}
	fmt.Fprintf(w, "everynode: %s\n", indent(err))
	return exitFailure
}

// indent keeps the further lines of an error (several joined ones, a log's tail) apart from what
// the shell prints next.
func indent(err error) string {
	return strings.ReplaceAll(err.Error(), "\n", "\n  ")
}

// exitCode ends the program with a code, after the command has said all there is to say.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit status %d", int(c)) }

// usageError is a mistake in the command line.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// asUsage marks an error of an options' Validate: its text names the flag.
func asUsage(err error) error {
	if err == nil {
		return nil
	}
	return &usageError{err}
}

const rootLong = `everynode keeps exactly one copy of every agent on every node.

It is a Kubernetes API server, a DaemonSet controller and a node agent in one program.
Start it, apply a DaemonSet as you would anywhere, and each machine that joins runs it.`

const rootExample = `  # Run everynode on this machine, and a DaemonSet on it (as root)
  everynode up
  everynode kubectl apply -f examples/node-exporter.yaml
  everynode kubectl get ds,pods,nodes -A -o wide

  # Let other machines join: listen where they can reach it; "up" prints the command for them
  everynode down
  everynode up --node-ip 192.0.2.10

  # Stop it, without a trace but the data; or the data too
  everynode down
  everynode down --purge`

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "everynode",
		Short:         "One copy of every agent on every node",
		Long:          rootLong,
		Example:       rootExample,
		Args:          unknownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return asUsage(err) })
	root.AddGroup(
		&cobra.Group{ID: "machine", Title: "This machine:"},
		&cobra.Group{ID: "cluster", Title: "The cluster:"},
		&cobra.Group{ID: "parts", Title: "The parts, each by itself:"},
	)
	root.AddCommand(
		newUp(), newDown(), newInstall(), newUninstall(),
		newKubectl(), newWhy(false), newPlan(false), newSimulate(), newToken(),
		newServer(), newAgent(),
		newVersion(), newSupervise(),
	)
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveDefault)
	return root
}

// newPlugin is what kubectl calls for "kubectl everynode": the commands that ask about any cluster.
func newPlugin() *cobra.Command {
	root := &cobra.Command{
		Use:           "kubectl-everynode",
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl everynode"},
		Short:         "Why a DaemonSet is or is not on each node, and what applying one would do",
		Example:       "  kubectl everynode why ds/calico-node -n kube-system\n  kubectl everynode plan -f node-exporter.yaml",
		Args:          unknownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return asUsage(err) })
	root.AddGroup(&cobra.Group{ID: "cluster", Title: "The cluster:"})
	root.AddCommand(newWhy(true), newPlan(true), newVersion())
	return root
}

// unknownCommand refuses arguments where a command is expected, and names what is close to them.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := ""
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = fmt.Sprintf("; did you mean %q?", near[0])
	}
	return usagef("unknown command %q of %q%s", args[0], cmd.CommandPath(), hint)
}

// noArguments is for commands that take flags only.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%s takes no arguments, only flags; what is %q?", cmd.CommandPath(), args[0])
	}
	return nil
}

func needRoot(command string) error {
	if os.Geteuid() == 0 {
		return nil
	}
	return fmt.Errorf("%s: it starts containers, so it must run as root; try `sudo everynode %s`", command, command)
}
