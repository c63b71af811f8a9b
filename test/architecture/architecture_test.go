// Package architecture keeps the promises of docs/ARCHITECTURE.md that a compiler
// does not: which package may import which, what the pure packages must not touch,
// and that every package says what it is for. Its failures say why a rule exists.
package architecture

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/everynode/everynode"

// layers are the rooms of internal/, the highest first. An arrow points downwards
// only: a room may import those below its own layer, and itself.
var layers = [][]string{
	{"cli"},
	{"apiserver", "controllers", "scheduler", "agent", "console", "sim"},
	{"explain", "store"},
	{"decide", "jointoken"},
	{"atomicfile", "sleep"},
}

// kubernetesImporters are the only rooms that may import k8s.io/kubernetes.
var kubernetesImporters = []string{"internal/apiserver", "internal/scheduler", "internal/controllers/housekeeping"}

// pureImports are the prefixes of what internal/decide may import besides the
// standard library.
var pureImports = []string{"k8s.io/api/", "k8s.io/apimachinery/", "k8s.io/component-helpers/", "k8s.io/utils/ptr", "k8s.io/utils/dump", module + "/internal/decide/"}

// impureStandard are the standard packages that have no place in a decision.
var impureStandard = []string{"os", "net", "net/http", "log", "log/slog", "math/rand", "math/rand/v2", "crypto/rand", "sync", "sync/atomic", "context", "io/fs", "os/exec", "syscall"}

// impureCalls are the functions of package time that read or follow a clock.
var impureCalls = []string{"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "NewTimer", "NewTicker", "Tick"}

// vagueNames say nothing about what a package is for.
var vagueNames = []string{"util", "utils", "common", "helper", "helpers", "manager", "misc", "shared", "base"}

type source struct {
	dir  string // slash separated, relative to the repository's root
	name string // file name
	file *ast.File
}

func (s source) test() bool { return strings.HasSuffix(s.name, "_test.go") }

func (s source) imports() []string {
	var paths []string
	for _, spec := range s.file.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err == nil {
			paths = append(paths, p)
		}
	}
	return paths
}

func within(dir, room string) bool { return dir == room || strings.HasPrefix(dir, room+"/") }

func hasPrefix(p string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(prefix string) bool {
		return p == strings.TrimSuffix(prefix, "/") || strings.HasPrefix(p, prefix)
	})
}

func layerOf(dir string) int {
	for i, rooms := range layers {
		for _, room := range rooms {
			if within(dir, "internal/"+room) {
				return i
			}
		}
	}
	return -1
}

func room(dir string) string {
	parts := strings.Split(dir, "/")
	if len(parts) < 2 {
		return dir
	}
	return parts[1]
}

// parse reads every Go file of the module, comments included.
func parse(t *testing.T) []source {
	t.Helper()
	const root = "../.."
	var sources []source
	fset := token.NewFileSet()
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			switch d.Name() {
			case ".git", "bin", "node_modules", "testdata", ".cache":
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		file, err := parser.ParseFile(fset, p, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		dir, name := path.Split(filepath.ToSlash(relative))
		sources = append(sources, source{dir: strings.TrimSuffix(dir, "/"), name: name, file: file})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(sources) < 10 {
		t.Fatalf("found only %d Go files: is the test run in its folder?", len(sources))
	}
	return sources
}

// violations returns why a file of dir may not import p, or "".
func violation(dir, p string) string {
	if strings.HasPrefix(p, "k8s.io/kubernetes/") && !slices.ContainsFunc(kubernetesImporters, func(r string) bool { return within(dir, r) }) && strings.HasPrefix(dir, "internal/") {
		return "only " + strings.Join(kubernetesImporters, ", ") + " may: k8s.io/kubernetes is not a supported library, and these rooms bound what an upgrade can break"
	}
	target, ours := strings.CutPrefix(p, module+"/")
	if !ours || !strings.HasPrefix(dir, "internal/") {
		return ""
	}
	from, to := layerOf(dir), layerOf(target)
	switch {
	case from < 0 || to < 0:
		return "one of the two lies in no layer of this test: say where it belongs"
	case from > to:
		return "arrows point downwards only (cli, then the roles, then explain and store, then decide), so that each role can be used without the ones above it"
	case from == to && room(dir) != room(target):
		return "the roles meet only in internal/cli and over the Kubernetes API, so that each can be swapped for the stock one"
	}
	return ""
}

func TestArrowsPointDownwards(t *testing.T) {
	for _, s := range parse(t) {
		if strings.HasPrefix(s.dir, "test/") {
			continue
		}
		for _, p := range s.imports() {
			if s.test() && strings.HasPrefix(p, module+"/test/") {
				continue // what tests share is in no layer
			}
			if why := violation(s.dir, p); why != "" {
				t.Errorf("%s/%s imports %s: %s", s.dir, s.name, p, why)
			}
		}
	}
}

func TestArrowRulesCatchWhatTheyForbid(t *testing.T) {
	for _, c := range []struct{ dir, imports string }{
		{"internal/agent/pods", "k8s.io/kubernetes/pkg/kubelet"},
		{"internal/decide/daemonset", module + "/internal/controllers/daemonset"},
		{"internal/agent", module + "/internal/apiserver"},
		{"internal/controllers/daemonset", module + "/internal/cli"},
	} {
		if violation(c.dir, c.imports) == "" {
			t.Errorf("%s may import %s, but must not", c.dir, c.imports)
		}
	}
	for _, c := range []struct{ dir, imports string }{
		{"internal/apiserver/direct", "k8s.io/kubernetes/pkg/apis/core"},
		{"internal/cli", module + "/internal/agent"},
		{"internal/controllers/daemonset", module + "/internal/decide/daemonset"},
		{"internal/agent/pods", module + "/internal/agent/volumes"},
	} {
		if why := violation(c.dir, c.imports); why != "" {
			t.Errorf("%s may not import %s (%s), but should", c.dir, c.imports, why)
		}
	}
}

func TestDecisionsArePure(t *testing.T) {
	for _, s := range parse(t) {
		if !within(s.dir, "internal/decide") || s.test() {
			continue
		}
		for _, why := range impurities(s) {
			t.Errorf("%s/%s %s: decisions take facts and time as arguments, so that equal inputs give equal outputs in the cluster, in plan, in why and in the simulation", s.dir, s.name, why)
		}
	}
}

func impurities(s source) []string {
	var found []string
	for _, p := range s.imports() {
		standard := !strings.Contains(strings.Split(p, "/")[0], ".")
		if standard && slices.Contains(impureStandard, p) || !standard && !hasPrefix(p, pureImports) {
			found = append(found, "imports "+p)
		}
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			found = append(found, "starts a goroutine")
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && (x.Name == "time" || x.Name == "metav1") && slices.Contains(impureCalls, n.Sel.Name) {
				found = append(found, fmt.Sprintf("reads a clock (%s.%s)", x.Name, n.Sel.Name))
			}
		}
		return true
	})
	return found
}

func TestPurityRulesCatchWhatTheyForbid(t *testing.T) {
	const impure = "package p\nimport (\"time\"; \"os\"; \"k8s.io/client-go/kubernetes\")\nfunc f() { go f(); _ = time.Now() }\n"
	file, err := parser.ParseFile(token.NewFileSet(), "p.go", impure, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	if found := impurities(source{file: file}); len(found) != 4 {
		t.Errorf("found %q, want four impurities", found)
	}
}

func TestEveryPackageIsDocumented(t *testing.T) {
	documented := map[string]bool{}
	for _, s := range parse(t) {
		if s.test() && !strings.HasPrefix(s.dir, "test/") {
			continue
		}
		documented[s.dir] = documented[s.dir] || s.file.Doc != nil && len(s.file.Doc.Text()) > 40
	}
	var dirs []string
	for dir := range documented {
		dirs = append(dirs, dir)
	}
	sort.Strings(dirs)
	for _, dir := range dirs {
		if !documented[dir] {
			t.Errorf("package %s has no package comment: say what it decides or does, who calls it, and what it never does", dir)
		}
		if slices.Contains(vagueNames, path.Base(dir)) {
			t.Errorf("package %s: the name says nothing; name it after what it holds", dir)
		}
	}
}
