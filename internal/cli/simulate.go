package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/everynode/everynode/internal/sim"
)

// simulateFlags are what a user says of a world.
type simulateFlags struct {
	options                  sim.Options
	faults, file, output     string
	maxUnavailable, maxSurge string
}

func newSimulate() *cobra.Command {
	var f simulateFlags
	cmd := &cobra.Command{
		Use:     "simulate",
		GroupID: "cluster",
		Short:   "Roll a DaemonSet out over thousands of simulated nodes, in virtual time",
		Long: `Roll a DaemonSet out over simulated nodes, and then an update of it, in virtual time.

The DaemonSet controller's own decisions run here, on nodes, an API and watches that are made up.
With --faults, nodes die and return, join, leave and are tainted; pods crash; writes and watch
events are refused, lost or late; controllers are killed and deposed. Throughout it is checked
that no node ever has two pods and that the update keeps to its budget, and at the end that every
node has what it should. The same flags always give the same output.

Nothing is contacted or written. Simulated nodes have 4 CPUs, 16Gi and room for 110 pods, are
labelled as Linux on amd64 in three zones, and have no taints at the beginning.`,
		Example: `  # How long does an update of 5,000 nodes take, 2 % at a time?
  everynode simulate --nodes 5000 --max-unavailable 2%

  # Your own DaemonSet, whose pods take a minute to be ready, on a bad day
  everynode simulate -f ds.yaml --nodes 500 --pod-start 1m --faults some --duration 2h

  # Another day
  everynode simulate --nodes 500 --faults many --seed 2 -o json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.IntVar(&f.options.Nodes, "nodes", 100, fmt.Sprintf("how many nodes there are: 1 to %d", sim.MaxNodes))
	flags.Uint64Var(&f.options.Seed, "seed", 1, "which of all possible histories happens")
	flags.StringVar(&f.faults, "faults", "none", "how much goes wrong: none, some or many")
	flags.DurationVar(&f.options.Duration, "duration", 30*time.Minute, "how long it goes wrong, in virtual time; after that everything works")
	flags.StringVarP(&f.file, "filename", "f", "", "manifest with the DaemonSet, - for stdin; without it, a small agent for every node")
	flags.StringVar(&f.maxUnavailable, "max-unavailable", "", "nodes that an update may take down at a time: a number or N%")
	flags.StringVar(&f.maxSurge, "max-surge", "", "nodes that an update may give a second pod at a time: a number or N%")
	flags.DurationVar(&f.options.PodStart, "pod-start", 3*time.Second, "about how long a pod takes to become ready")
	flags.StringToStringVar(&f.options.NodeLabels, "node-labels", nil, "labels of every node, as key=value,…")
	flags.StringVarP(&f.output, "output", "o", "table", "table or json")
	return cmd
}

func (f *simulateFlags) run(cmd *cobra.Command) error {
	if f.output != "table" && f.output != "json" {
		return usagef("--output %q: want table or json", f.output)
	}
	if err := f.complete(cmd.InOrStdin()); err != nil {
		return err
	}
	if err := f.options.Validate(); err != nil {
		return asUsage(fmt.Errorf("simulate: %w", err))
	}
	result, err := sim.Run(cmd.Context(), f.options)
	if err != nil {
		return fmt.Errorf("simulate: %w", err)
	}
	if err := f.print(cmd.OutOrStdout(), result); err != nil {
		return err
	}
	if v := result.Violation; v != nil {
		return fmt.Errorf("simulate: a promise was broken after %v: %s: %s; this is a mistake in everynode: please report it, with the flags",
			v.At.Duration, v.Invariant, v.Message)
	}
	return nil
}

// complete reads the files and words among the flags into the options.
func (f *simulateFlags) complete(stdin io.Reader) error {
	var err error
	if f.options.Faults, err = sim.ParseFaults(f.faults); err != nil {
		return asUsage(fmt.Errorf("--faults: %w", err))
	}
	f.options.DaemonSet = sim.DefaultDaemonSet()
	if f.file != "" {
		if f.options.DaemonSet, err = readDaemonSet(f.file, stdin); err != nil {
			return fmt.Errorf("simulate: %w", err)
		}
	}
	if f.maxUnavailable == "" && f.maxSurge == "" {
		return nil
	}
	// One without the other means that the other is 0, for exactly one of them may be above.
	amount := func(s string) *intstr.IntOrString {
		v := intstr.Parse(s)
		if s == "" {
			v = intstr.FromInt32(0)
		}
		return &v
	}
	f.options.DaemonSet.Spec.UpdateStrategy = appsv1.DaemonSetUpdateStrategy{
		Type: appsv1.RollingUpdateDaemonSetStrategyType,
		RollingUpdate: &appsv1.RollingUpdateDaemonSet{
			MaxUnavailable: amount(f.maxUnavailable), MaxSurge: amount(f.maxSurge),
		},
	}
	return nil
}

// readDaemonSet returns the DaemonSet of a manifest, the first if there are several.
func readDaemonSet(file string, stdin io.Reader) (*appsv1.DaemonSet, error) {
	found, err := readManifests([]string{file}, stdin)
	if err != nil {
		return nil, err
	}
	return found[0].DaemonSet().DeepCopy(), nil
}

func (f *simulateFlags) print(out io.Writer, r *sim.Result) error {
	if f.output == "json" {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	fmt.Fprintf(out, "DaemonSet %s on %d nodes; %s; faults: %s; seed %d\n\n", r.DaemonSet, r.Nodes, r.Strategy, r.Faults, r.Seed)
	if err := printProgress(out, r); err != nil {
		return err
	}
	for _, s := range r.Steps {
		fmt.Fprintln(out, describeStep(s))
	}
	fmt.Fprintf(out, "\nUnavailable at worst, after the first rollout: %d nodes (after %s).\n", r.WorstUnavailable, shortDuration(r.WorstUnavailableAt.Duration))
	if r.MostByUpdate > 0 {
		fmt.Fprintf(out, "Taken down by the update itself: at most %d at a time; its budget is %d.\n", r.MostByUpdate, r.Budget)
	}
	w := r.Writes
	fmt.Fprintf(out, "Writes: %d pods created, %d deleted, %d adopted, %d looked up, %d statuses. At rest after %s.\n",
		w.Creates, w.Deletes, w.Claims, w.Checks, w.Statuses, shortDuration(r.AtRest.Duration))
	printMishaps(out, r.Mishaps)
	printPromises(out, r)
	return nil
}

// maxFullSteps is how many rollouts are shown mark by mark; of more, each shows its last mark only.
const maxFullSteps = 3

func printProgress(out io.Writer, r *sim.Result) error {
	w := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
	fmt.Fprintln(w, "STEP\tTIME\tWAVE\tUPDATED\tAVAILABLE\tUNAVAILABLE")
	for _, s := range r.Steps {
		marks := s.Marks
		if len(r.Steps) > maxFullSteps && len(marks) > 0 {
			marks = marks[len(marks)-1:]
		}
		for _, m := range marks {
			fmt.Fprintf(w, "%s\t%s\t%d/%d\t%d/%d\t%d\t%d\n", s.Name, shortDuration(m.At.Duration), m.Wave, s.Waves, m.Updated, m.Desired, m.Available, m.Unavailable)
		}
	}
	fmt.Fprintln(w)
	return w.Flush()
}

// describeStep is one rollout in a sentence.
func describeStep(s *sim.Step) string {
	began := "began after " + shortDuration(s.Began.Duration)
	switch {
	case s.Took == nil && len(s.Marks) > 0:
		return fmt.Sprintf("%s: %s, reached %d%% of the nodes", s.Name, began, s.Marks[len(s.Marks)-1].Percent)
	case s.Took == nil:
		return fmt.Sprintf("%s: %s, reached no tenth of the nodes", s.Name, began)
	case s.Waves > 1:
		return fmt.Sprintf("%s: %s, took %s in %d waves", s.Name, began, shortDuration(s.Took.Duration), s.Waves)
	default:
		return fmt.Sprintf("%s: %s, took %s", s.Name, began, shortDuration(s.Took.Duration))
	}
}

func printMishaps(out io.Writer, mishaps map[string]int) {
	if len(mishaps) == 0 {
		return
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(mishaps)) {
		all = append(all, fmt.Sprintf("%s %d", name, mishaps[name]))
	}
	fmt.Fprintf(out, "Mishaps: %s.\n", strings.Join(all, ", "))
}

func printPromises(out io.Writer, r *sim.Result) {
	fmt.Fprintln(out, "\nPromises:")
	for _, p := range r.Invariants {
		word := "kept"
		switch {
		case !p.Held:
			word = "BROKEN"
		case p.Checks == 0:
			word = "not put to the test"
		}
		fmt.Fprintf(out, "  %s: %s (%d checks)\n", p.Name, word, p.Checks)
	}
	if r.Violation != nil {
		fmt.Fprintf(out, "\nWhat led to it:\n%s\n", strings.Join(r.Violation.Transcript, "\n"))
	}
}

// shortDuration leaves out what does not matter at its size.
func shortDuration(d time.Duration) string {
	if d < time.Minute {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
