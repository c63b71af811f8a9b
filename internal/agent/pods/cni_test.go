package pods

import (
	"os"
	"path/filepath"
	"testing"
)

func TestBrokenResultsAreDropped(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"everynode-a-eth0": "", "everynode-b-eth0": "", "everynode-c-eth0": `{"kind": "x"}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, sandbox := range []string{"a", "c", "d"} {
		if err := dropBrokenResult(dir, sandbox); err != nil {
			t.Error(err)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != 2 {
		t.Errorf("left: %q, %v; want the whole one of c, and b's, which nobody asked about", left, err)
	}
}
