package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/everynode/everynode/internal/explain"
)

func newPlan(plugin bool) *cobra.Command {
	c := &connection{plugin: plugin}
	output := string(explain.Table)
	var exitCodes bool
	var files []string
	cmd := &cobra.Command{
		Use:     "plan -f FILE",
		GroupID: "cluster",
		Short:   "What applying a DaemonSet would do, node by node",
		Long: `Say what ` + "`kubectl apply`" + ` of a manifest would do on each node, and write nothing.

  create     the node gets a pod                  update    its pod is replaced
  delete     its pod goes, and none comes         keep      its pod stays as it is
  wait       its pod would not be updated         exclude   a rule keeps it out: which one

The server says what it would store (a dry run: defaults, validation and admission are its own).
Then the machine that rolls DaemonSets out is run against the listed nodes and pods in memory,
with every pod coming up: the waves are those of maxUnavailable or maxSurge. A rollout that
could not finish even then says what it would hang on.
` + connectionHelp + `

Exit codes: 0 planned; 1 the server would refuse it, or it could not be asked; 2 wrong usage.
With --exit-code also 3 if applying would create or change a DaemonSet.`,
		Example: `  everynode plan -f node-exporter.yaml
  everynode plan -f node-exporter.yaml -o json | jq '.plans[].waves'
  kubectl get ds node-exporter -o yaml | sed s/v1.5/v1.6/ | everynode plan -f -`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			format := explain.Format(output)
			if err := format.Validate(); err != nil {
				return asUsage(err)
			}
			if len(files) == 0 {
				return usagef("which manifest? give -f FILE, or -f - for standard input")
			}
			manifests, err := readManifests(files, cmd.InOrStdin())
			if err != nil {
				return fmt.Errorf("plan: %w", err)
			}
			plans, err := plan(cmd, c, manifests)
			if err != nil {
				return err
			}
			if err := printPlans(cmd.OutOrStdout(), plans, format); err != nil {
				return err
			}
			if exitCodes && slices.ContainsFunc(plans, func(p *explain.Plan) bool { return p.Change != explain.Unchanged }) {
				return exitCode(exitDiffers)
			}
			return nil
		},
	}
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "manifest, or a folder of them, or - for standard input; may be repeated")
	c.addFlags(cmd.Flags())
	addExplainFlags(cmd, &output, &exitCodes, "exit with 3 if applying would create or change a DaemonSet")
	return cmd
}

func plan(cmd *cobra.Command, c *connection, manifests []*explain.Manifest) ([]*explain.Plan, error) {
	client, namespace, err := c.connect(newWarningPrinter(cmd.ErrOrStderr()))
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), explainTimeout)
	defer cancel()
	g := explain.Gatherer{Client: client}
	var plans []*explain.Plan
	for _, m := range manifests {
		dry, err := explain.DryRunApply(ctx, client, m, namespace)
		if err != nil {
			return nil, fmt.Errorf("plan: %w", err)
		}
		facts, err := g.ForPlan(ctx, dry.After)
		if err != nil {
			return nil, fmt.Errorf("plan: %w", err)
		}
		for _, earlier := range plans {
			earlier.Carry(facts)
		}
		p := explain.NewPlan(facts, dry)
		p.Warnings = append(p.Warnings, m.Warnings...)
		plans = append(plans, p)
	}
	return plans, nil
}

// readManifests reads every DaemonSet of the files. That there is none is an error: it is not what was meant.
func readManifests(files []string, stdin io.Reader) ([]*explain.Manifest, error) {
	var all []*explain.Manifest
	for _, name := range files {
		paths, err := manifestPaths(name)
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			some, err := readManifest(path, stdin)
			if err != nil {
				return nil, err
			}
			all = append(all, some...)
		}
	}
	if len(all) == 0 {
		return nil, errors.New("the manifests hold no DaemonSet")
	}
	return all, nil
}

func manifestPaths(name string) ([]string, error) {
	if name == "-" {
		return []string{name}, nil
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{name}, nil
	}
	var paths []string
	for _, pattern := range []string{"*.json", "*.yaml", "*.yml"} { // as kubectl does
		found, err := filepath.Glob(filepath.Join(name, pattern))
		if err != nil {
			return nil, err
		}
		paths = append(paths, found...)
	}
	slices.Sort(paths)
	return paths, nil
}

func readManifest(path string, stdin io.Reader) ([]*explain.Manifest, error) {
	in := stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer func() { _ = file.Close() }()
		in = file
	}
	found, err := explain.ReadManifests(bufio.NewReader(in))
	var old *explain.VersionError
	if errors.As(err, &old) {
		if hint := removedHint("DaemonSet", old.APIVersion); hint != "" {
			err = fmt.Errorf("DaemonSet %s: %s", old.Name, hint)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return found, nil
}

func printPlans(w io.Writer, plans []*explain.Plan, format explain.Format) error {
	if format == explain.JSON {
		return explain.PrintJSON(w, map[string]any{"plans": plans})
	}
	for i, p := range plans {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if err := p.Print(w, format); err != nil {
			return err
		}
	}
	return nil
}
