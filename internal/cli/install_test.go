package cli

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/spf13/cobra"

	"github.com/everynode/everynode/internal/agent"
)

// A service gets the flags that were given, all of them and no others, as its command reads them.
func TestServiceArgs(t *testing.T) {
	var o agent.Options
	var in installation
	cmd := &cobra.Command{}
	addAgentFlags(cmd.Flags(), &o)
	in.flags(cmd)
	given := []string{
		"--server=https://192.0.2.1:6443", "--node-labels=a=b,c=d", "--listen-port=10350", "--timeout=5s", "--listen-loopback-only",
	}
	if err := cmd.ParseFlags(given); err != nil {
		t.Fatal(err)
	}
	args := serviceArgs(cmd.Flags(), in.own)
	var again agent.Options
	reader := &cobra.Command{}
	addAgentFlags(reader.Flags(), &again)
	if err := reader.ParseFlags(args); err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	if !reflect.DeepEqual(again, o) || len(args) != len(given)-1 {
		t.Errorf("%q became %q: %+v", given, args, again)
	}
}

func TestSameContent(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	a, same, other := write("a", "abc"), write("same", "abc"), write("other", "abd")
	for path, want := range map[string]bool{a: true, same: true, other: false, filepath.Join(dir, "none"): false} {
		if got, err := sameContent(a, path); err != nil || got != want {
			t.Errorf("%s: %v, %v", path, got, err)
		}
	}
}
