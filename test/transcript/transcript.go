// Package transcript replays stories that are kept in testdata: what was done to a machine and,
// below each command, what came of it. They are read as documentation and compared to the letter;
// `go test -update` writes down what happens now. Tests of the decisions use it.
package transcript

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write what happened into the transcripts")

// Files compares every file of testdata/*.txt with what replay makes of it.
func Files(t *testing.T, replay func(t *testing.T, text string) string) {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := replay(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); d != "" {
				t.Errorf("(-want +got; -update accepts):\n%s", d)
			}
		})
	}
}

// Command does what one line says, and returns what came of it, line by line.
type Command func(t *testing.T, name string, args []string) []string

// Play replays transcripts in which a line that begins with "> " is a command, "#" starts a remark,
// and everything else is what came of the command above. Each file starts with a new world.
func Play(t *testing.T, world func() Command) {
	t.Helper()
	Files(t, func(t *testing.T, text string) string {
		do := world()
		var out strings.Builder
		for line := range strings.Lines(text) {
			line = strings.TrimRight(line, "\n")
			command, is := strings.CutPrefix(line, "> ")
			if !is {
				if line == "" || strings.HasPrefix(line, "#") {
					fmt.Fprintln(&out, line)
				}
				continue
			}
			fmt.Fprintln(&out, line)
			args := strings.Fields(command)
			for _, l := range do(t, args[0], args[1:]) {
				fmt.Fprintln(&out, "  "+l)
			}
		}
		return out.String()
	})
}
