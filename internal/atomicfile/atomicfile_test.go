package atomicfile

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWriteReplacesWholeAndPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte("a longer old content"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, []byte("new")); err != nil {
		t.Fatal(err)
	}
	assertFile(t, path, "new")
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestWriteLeavesTheOldFileWhenItFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	// A directory in the file's place makes the rename fail, after everything else has been done.
	if err := os.MkdirAll(filepath.Join(path, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, []byte("new")); err == nil {
		t.Fatal("a directory was replaced")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestWriteIfChanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca")
	for i, want := range []bool{true, false} {
		if changed, err := WriteIfChanged(path, []byte("ca")); err != nil || changed != want {
			t.Errorf("call %d: changed=%v, err=%v", i, changed, err)
		}
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if changed, err := WriteIfChanged(path, []byte("ca")); err != nil || changed {
		t.Errorf("changed=%v, err=%v", changed, err)
	}
	assertFile(t, path, "ca")
}

func TestSweepTakesOnlyWhatCrashesLeft(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".ca.key" + marker + "123", "ca.key", ".hidden", "x" + marker} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, Mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := Sweep(dir); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 3 {
		t.Errorf("left: %v, want 3", entries)
	}
}

func TestDirIsClosedToOthers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Dir(dir); err != nil {
		t.Fatal(err)
	}
	if fi, _ := os.Stat(dir); fi.Mode().Perm() != 0o700 {
		t.Errorf("mode %v", fi.Mode())
	}
}

func assertFile(t *testing.T, path, content string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil || string(data) != content {
		t.Errorf("%s holds %q (%v), want %q", path, data, err, content)
	}
	if fi, _ := os.Stat(path); fi.Mode().Perm() != Mode {
		t.Errorf("%s has mode %v, want %v", path, fi.Mode(), Mode)
	}
}
