package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	componentcli "k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"

	"github.com/everynode/everynode/internal/cli/layout"
)

func newKubectl() *cobra.Command {
	return &cobra.Command{
		Use:     "kubectl [--data-dir DIR] COMMAND ...",
		GroupID: "cluster",
		Short:   "The embedded kubectl, with this machine's admin kubeconfig",
		Long: `The embedded kubectl. All of its commands and flags are the stock ones.

Without KUBECONFIG and --kubeconfig it uses DIR/admin.kubeconfig, DIR being --data-dir
(` + layout.DefaultDataDir + `), which must come before kubectl's command. A link named "kubectl"
to everynode is kubectl as well.`,
		Example: `  everynode kubectl get ds,pods,nodes -A -o wide
  everynode kubectl apply -f examples/node-exporter.yaml
  everynode kubectl --data-dir /srv/everynode get nodes
  ln -s "$(command -v everynode)" /usr/local/bin/kubectl`,
		DisableFlagParsing: true, // all flags are kubectl's
		RunE: func(cmd *cobra.Command, args []string) error {
			dataDir, rest, err := cutDataDir(args)
			if err != nil {
				return err
			}
			return exitCode(runKubectl(dataDir, rest))
		},
	}
}

// cutDataDir takes our one flag off the front of kubectl's arguments.
func cutDataDir(args []string) (dataDir string, rest []string, err error) {
	if len(args) == 0 {
		return layout.DefaultDataDir, args, nil
	}
	if value, ok := strings.CutPrefix(args[0], "--data-dir="); ok {
		return value, args[1:], nil
	}
	if args[0] != "--data-dir" {
		return layout.DefaultDataDir, args, nil
	}
	if len(args) == 1 {
		return "", nil, usagef("flag needs an argument: --data-dir")
	}
	return args[1], args[2:], nil
}

// runKubectl is kubectl's main function with our kubeconfig and our hints. It returns only when
// kubectl succeeded; kubectl's failures end the process in kubectlFatal, with kubectl's exit code.
func runKubectl(dataDir string, args []string) int {
	os.Args = append([]string{"kubectl"}, args...) // kubectl reads it in several places
	kubeconfig := layout.Layout{DataDir: dataDir}.AdminKubeconfig()
	chosen := os.Getenv("KUBECONFIG") != "" || hasFlag(args, "--kubeconfig", "--server", "-s")
	if !chosen {
		if err := os.Setenv("KUBECONFIG", kubeconfig); err != nil {
			fmt.Fprintf(os.Stderr, "everynode: kubectl: %v\n", err)
			return exitFailure
		}
	}
	kubectlutil.BehaviorOnFatal(func(message string, code int) {
		kubectlFatal(os.Stderr, message)
		if !chosen {
			kubeconfigHint(os.Stderr, kubeconfig)
		}
		os.Exit(code)
	})
	_, _ = logs.GlogSetter(kubectl.GetLogVerbosity(os.Args)) // as in kubectl's own main
	if err := componentcli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err) // does not return
	}
	return exitOK
}

func hasFlag(args []string, names ...string) bool {
	for _, arg := range args {
		if arg == "--" {
			return false
		}
		for _, name := range names {
			if arg == name || strings.HasPrefix(arg, name+"=") {
				return true
			}
		}
	}
	return false
}

// kubectlFatal prints a message as kubectl does, and what we know about it.
func kubectlFatal(w io.Writer, message string) {
	if message == "" {
		return
	}
	fmt.Fprintln(w, strings.TrimSuffix(message, "\n"))
	for _, hint := range removedHints(message) {
		fmt.Fprintf(w, "hint: %s\n", hint)
	}
}

// kubeconfigHint says what to do when there is no kubeconfig, or none that this user may read.
func kubeconfigHint(w io.Writer, path string) {
	file, err := os.Open(path)
	switch {
	case err == nil:
		_ = file.Close()
	case errors.Is(err, fs.ErrPermission):
		fmt.Fprintf(w, "hint: only root may read %s: use sudo, or name another kubeconfig with --kubeconfig\n", path)
	case errors.Is(err, fs.ErrNotExist):
		fmt.Fprintf(w, "hint: there is no %s: start everynode here with `everynode up`, or name a kubeconfig with --kubeconfig\n", path)
	}
}
