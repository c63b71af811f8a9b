package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/everynode/everynode/internal/cli/footprint"
	"github.com/everynode/everynode/internal/cli/layout"
	"github.com/everynode/everynode/internal/cli/supervise"
)

// newSupervise is the process that `up` leaves behind; nobody types it.
func newSupervise() *cobra.Command {
	var dataDir, runDir string
	cmd := &cobra.Command{
		Use:    "supervise",
		Hidden: true,
		Short:  "Keep the processes of `up` running",
		Args:   noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := layout.New(dataDir, runDir)
			if err != nil {
				return asUsage(err)
			}
			spec, err := supervise.ReadSpec(l)
			if err != nil {
				return err
			}
			if err := setLogging(1); err != nil { // it logs only when a process starts or ends
				return err
			}
			footprint.Tune(20, 0)
			footprint.Release(cmd.Context())
			if err := supervise.Run(cmd.Context(), spec); err != nil {
				return fmt.Errorf("supervise: %w", err)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&dataDir, "data-dir", layout.DefaultDataDir, "data directory")
	cmd.Flags().StringVar(&runDir, "run-dir", layout.DefaultRunDir, "run directory")
	return cmd
}
