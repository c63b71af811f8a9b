package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/everynode/everynode/internal/explain"
)

const (
	// exitDiffers is what --exit-code makes of an answer other than "all is well".
	exitDiffers = 3
	// explainTimeout bounds a whole why or plan: lists of a very large cluster take long.
	explainTimeout = 2 * time.Minute
)

func newWhy(plugin bool) *cobra.Command {
	c := &connection{plugin: plugin}
	output := string(explain.Table)
	var exitCodes bool
	cmd := &cobra.Command{
		Use:     "why ds/NAME [NODE...]",
		GroupID: "cluster",
		Short:   "Why a DaemonSet is, or is not, on each node",
		Long: `Say of each node whether it has the DaemonSet, and exactly why not.

  in         it has an available pod of the current revision
  out        a rule excludes it: which taint, which selector or affinity term, and what the
             node has instead
  pending    its pod is missing or not available: which resource is short by how much, which
             port is held by which pod, what the pod waits for
  updating   its pod is of an old revision, or being replaced
  failing    its pod keeps failing: which container, and how it ended the last time

The answer comes from the code that places daemons, not from a copy of its rules.
` + connectionHelp + `

Exit codes: 0 answered; 1 could not be answered; 2 wrong usage. With --exit-code also
3 if a node that should have the DaemonSet has not, or if no node has it.`,
		Example: `  everynode why ds/node-exporter -n monitoring
  everynode why ds/node-exporter -n monitoring worker-7 -o wide
  everynode why ds/node-exporter -n monitoring -o json | jq '.nodes[] | select(.state=="out")'
  kubectl everynode why ds/calico-node -n kube-system   # by a link kubectl-everynode to everynode`,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, nodes, err := daemonSetArguments(args)
			if err != nil {
				return err
			}
			format := explain.Format(output)
			if err := format.Validate(); err != nil {
				return asUsage(err)
			}
			report, err := why(cmd, c, name, nodes)
			if err != nil {
				return err
			}
			if err := report.Print(cmd.OutOrStdout(), format); err != nil {
				return err
			}
			if exitCodes && !report.Settled() {
				return exitCode(exitDiffers)
			}
			return nil
		},
	}
	c.addFlags(cmd.Flags())
	addExplainFlags(cmd, &output, &exitCodes, "exit with 3 if not every node that should have the DaemonSet has it")
	return cmd
}

func addExplainFlags(cmd *cobra.Command, output *string, exitCodes *bool, exitHelp string) {
	cmd.Flags().StringVarP(output, "output", "o", *output, "table, wide or json")
	cmd.Flags().BoolVar(exitCodes, "exit-code", false, exitHelp)
}

func why(cmd *cobra.Command, c *connection, name string, nodes []string) (*explain.Report, error) {
	client, namespace, err := c.connect(newWarningPrinter(cmd.ErrOrStderr()))
	if err != nil {
		return nil, fmt.Errorf("why: %w", err)
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), explainTimeout)
	defer cancel()
	g := explain.Gatherer{Client: client}
	facts, err := g.ForWhy(ctx, namespace, name, nodes)
	if apierrors.IsNotFound(err) && strings.Contains(err.Error(), "DaemonSet") {
		return nil, fmt.Errorf("why: there is no DaemonSet %s in namespace %s; `everynode kubectl get ds -A` shows all, -n names another namespace", name, namespace)
	}
	if err != nil {
		return nil, fmt.Errorf("why: %w", err)
	}
	return explain.Why(facts), nil
}

// daemonSetArguments reads "ds/NAME [NODE...]", in all the ways in which kubectl users write it.
func daemonSetArguments(args []string) (name string, nodes []string, err error) {
	if len(args) == 0 {
		return "", nil, usagef("which DaemonSet? for example: everynode why ds/node-exporter")
	}
	kind, name, slashed := strings.Cut(args[0], "/")
	rest := args[1:]
	if !slashed {
		if !isDaemonSetKind(kind) {
			return kind, rest, nil
		}
		if len(rest) == 0 {
			return "", nil, usagef("which DaemonSet? for example: everynode why %s/node-exporter", kind)
		}
		return rest[0], rest[1:], nil
	}
	if !isDaemonSetKind(kind) {
		return "", nil, usagef("%q: only DaemonSets can be explained, as ds/NAME", args[0])
	}
	if name == "" {
		return "", nil, usagef("%q names no DaemonSet", args[0])
	}
	return name, rest, nil
}

func isDaemonSetKind(kind string) bool {
	switch strings.ToLower(kind) {
	case "ds", "daemonset", "daemonsets", "daemonset.apps", "daemonsets.apps", "daemonsets.v1.apps":
		return true
	}
	return false
}
