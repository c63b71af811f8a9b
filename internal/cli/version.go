package cli

import (
	"encoding/json"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
	componentversion "k8s.io/component-base/version"
)

// version is everynode's own, set by the linker (see the Makefile).
var version = "unknown"

type versionInfo struct {
	Version    string `json:"version"`
	Commit     string `json:"commit"`
	Kubernetes string `json:"kubernetes"`
	Go         string `json:"go"`
	Platform   string `json:"platform"`
}

func newVersion() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of everynode and of the Kubernetes libraries in it",
		Example: `  everynode version
  everynode version -o json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			upstream := componentversion.Get()
			info := versionInfo{
				Version: version, Commit: upstream.GitCommit, Kubernetes: upstream.GitVersion,
				Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
			}
			switch output {
			case "":
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "everynode %s (Kubernetes %s, %s, %s)\n", info.Version, info.Kubernetes, info.Go, info.Platform)
				return err
			case "json":
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(info)
			}
			return usagef("--output %q: only json is known", output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json, or nothing for one line of text")
	return cmd
}
