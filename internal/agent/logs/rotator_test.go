package logs

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// runtime opens a log anew as containerd does: the path is made if it is not there.
type runtime struct {
	paths map[string]string
	opens int
	err   error
}

func (r *runtime) ReopenContainerLog(_ context.Context, id string) error {
	if r.err != nil {
		return r.err
	}
	r.opens++
	f, err := os.OpenFile(r.paths[id], os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	return f.Close()
}

type fixture struct {
	t       *testing.T
	dir     string
	log     Log
	runtime *runtime
	rotator *Rotator
	now     time.Time
}

func newFixture(t *testing.T, maxSize int64, maxFiles int) *fixture {
	t.Helper()
	dir := t.TempDir()
	f := &fixture{t: t, dir: dir, log: Log{ContainerID: "c", Path: filepath.Join(dir, "0.log")}, now: time.Date(2026, 11, 21, 18, 0, 0, 0, time.UTC)}
	f.runtime = &runtime{paths: map[string]string{"c": f.log.Path}}
	r, err := New(Options{Runtime: f.runtime, Running: func() []Log { return []Log{f.log} }, MaxSize: maxSize, MaxFiles: maxFiles})
	if err != nil {
		t.Fatal(err)
	}
	r.now = func() time.Time { return f.now }
	f.rotator = r
	return f
}

func (f *fixture) write(name, text string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), []byte(text), 0o640); err != nil {
		f.t.Fatal(err)
	}
}

// files are the folder's, with what they hold; compressed ones are read.
func (f *fixture) files() string {
	f.t.Helper()
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		f.t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name()+"="+f.read(e.Name()))
	}
	return strings.Join(list, " ")
}

func (f *fixture) read(name string) string {
	f.t.Helper()
	file, err := os.Open(filepath.Join(f.dir, name))
	if err != nil {
		f.t.Fatal(err)
	}
	defer file.Close()
	var in io.Reader = file
	if strings.HasSuffix(name, ".gz") {
		if in, err = gzip.NewReader(file); err != nil {
			f.t.Fatal(err)
		}
	}
	b, err := io.ReadAll(in)
	if err != nil {
		f.t.Fatal(err)
	}
	return string(b)
}

func (f *fixture) want(files string) {
	f.t.Helper()
	if got := f.files(); got != files {
		f.t.Errorf("files:\n got %s\nwant %s", got, files)
	}
}

// TestLogsLife follows a log over five rotations: the newest part stays plain, older ones are
// compressed, and there are never more files than allowed.
func TestLogsLife(t *testing.T) {
	f := newFixture(t, 3, 4)
	f.write("0.log", "no")
	f.rotator.look(t.Context())
	f.want("0.log=no")
	for _, text := range []string{"one", "two", "three", "four", "five"} {
		f.write("0.log", text)
		f.rotator.look(t.Context())
		f.now = f.now.Add(10 * time.Second)
	}
	f.want("0.log= 0.log.20261121-180020.gz=three 0.log.20261121-180030.gz=four 0.log.20261121-180040=five")
	info, err := os.Stat(filepath.Join(f.dir, "0.log.20261121-180030.gz"))
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("compressed part has mode %v, %v", info.Mode(), err)
	}
}

func TestSortOut(t *testing.T) {
	for _, c := range []struct {
		name           string
		have           []string
		keep           int
		drop, compress []string
	}{
		{"nothing yet", nil, 3, nil, nil},
		{"plain ones are compressed", []string{"b", "a.gz"}, 3, nil, []string{"b"}},
		{"the oldest go", []string{"c", "a.gz", "b.gz"}, 2, []string{"a.gz"}, []string{"c"}},
		{"two files only", []string{"b", "a.gz"}, 0, []string{"a.gz", "b"}, nil},
		{"compression was interrupted", []string{"a", "a.tmp"}, 3, []string{"a.tmp"}, []string{"a"}},
		{"compressed and not yet removed", []string{"a", "a.gz"}, 3, []string{"a"}, nil},
	} {
		drop, compress := sortOut(c.have, c.keep)
		if !slices.Equal(drop, c.drop) || !slices.Equal(compress, c.compress) {
			t.Errorf("%s: drop %v, compress %v; want %v, %v", c.name, drop, compress, c.drop, c.compress)
		}
	}
}

// TestRuntimeThatDoesNotOpenTheLogAnew keeps the file it writes to under its name.
func TestRuntimeThatDoesNotOpenTheLogAnew(t *testing.T) {
	f := newFixture(t, 3, 5)
	f.write("0.log", "text")
	f.runtime.err = errors.New("busy")
	f.rotator.look(t.Context())
	f.want("0.log=text")
	f.runtime.err = nil
	f.rotator.look(t.Context())
	f.want("0.log= 0.log.20261121-180000=text")
}

// TestAgentKilledInRotation finds the log renamed and the runtime not told.
func TestAgentKilledInRotation(t *testing.T) {
	f := newFixture(t, 3, 5)
	f.write("0.log.20261121-170000", "text")
	f.rotator.look(t.Context())
	f.want("0.log= 0.log.20261121-170000=text")
}

// TestTwiceInASecond must not write one part over another.
func TestTwiceInASecond(t *testing.T) {
	f := newFixture(t, 3, 5)
	f.write("0.log.20261121-180000", "first")
	f.write("0.log", "second")
	f.rotator.look(t.Context())
	f.rotator.look(t.Context())
	if got := f.read("0.log") + f.files(); !strings.Contains(got, "second") || !strings.Contains(got, "first") {
		t.Errorf("a part was lost: %s", got)
	}
}

func TestOptions(t *testing.T) {
	running := func() []Log { return nil }
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{}, "Runtime and Running"},
		{Options{Runtime: &runtime{}, Running: running, MaxFiles: 1}, "MaxFiles is 1"},
		{Options{Runtime: &runtime{}, Running: running}, ""},
	} {
		_, err := New(c.o)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v, want %q", c.o, err, c.want)
		}
	}
}
