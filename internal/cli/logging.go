package cli

import (
	"flag"
	"io"
	"os"
	"strconv"

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
)

// addVerbosity adds -v to a long-running command.
func addVerbosity(fs *pflag.FlagSet) *int {
	return fs.IntP("verbosity", "v", 0, "what to log: 0 warnings and errors, 1 what happens, 4 why, more for debugging")
}

// setLogging sends the log to standard error. Kubernetes' libraries log dozens of lines at their
// lowest level while they start; at 0 a person sees only what is wrong.
func setLogging(verbosity int) error {
	fs := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(fs)
	settings := map[string]string{"logtostderr": "true", "v": strconv.Itoa(verbosity)}
	if verbosity == 0 {
		// Each line goes to the writer of its severity alone.
		settings = map[string]string{"logtostderr": "false", "one_output": "true", "stderrthreshold": "FATAL"}
		klog.SetOutputBySeverity("INFO", io.Discard)
		for _, severity := range []string{"WARNING", "ERROR", "FATAL"} {
			klog.SetOutputBySeverity(severity, os.Stderr)
		}
	}
	for name, value := range settings {
		if err := fs.Set(name, value); err != nil {
			return err
		}
	}
	return nil
}
