//go:build conformance

package conformance

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/everynode/everynode/test/e2e/cluster"
)

// The specs that the product is measured by first: 10 of DaemonSets, 1 of ControllerRevisions.
const defaultFocus = `(Daemon set|ControllerRevision) \[Serial\]`

// Folders and programs, from the repository's root; the Makefile makes the programs.
const (
	root       = "../.."
	everynode  = "bin/everynode"
	kubectl    = "bin/kubectl"
	suite      = "bin/conformance/e2e.test"
	ginkgo     = "bin/conformance/ginkgo"
	agnhost    = "bin/conformance/agnhost"
	nonewprivs = "bin/conformance/nonewprivs"
	reportDir  = "bin/conformance/report"
	imageDir   = "bin/conformance/images"
	packageDir = "bin/conformance/packages"
)

func TestMain(m *testing.M) { cluster.Main(m) }

func TestConformance(t *testing.T) {
	report := absolute(t, reportDir)
	if err := errors.Join(os.RemoveAll(report), os.MkdirAll(report, 0o755)); err != nil {
		t.Fatal(err)
	}
	images, err := makeImages(t)
	if err != nil {
		t.Fatal(err)
	}
	c := cluster.New(t, cluster.Programs{Everynode: program(t, everynode), Kubectl: program(t, kubectl), Images: images})
	c.AddNode()
	c.AddNode()
	c.AwaitReady()
	c.RoutePods()

	log := filepath.Join(report, "log")
	fmt.Printf("the suite writes to %s\n", log)
	run := c.Switch.Start("suite", append([]string{"sh", "-c", `exec "$@" >"$0" 2>&1`, log}, command(t, c, report)...)...)
	<-run.Done()

	specs, err := readReport(filepath.Join(report, "junit.xml"))
	if err != nil {
		t.Fatalf("the suite left no report (%v); see %s", err, log)
	}
	passed := 0
	for _, s := range specs {
		fmt.Println(s)
		if s.failed() {
			t.Errorf("%s\n%s", s.Name, s.why())
		} else {
			passed++
		}
	}
	fmt.Printf("passed %d of %d\n", passed, len(specs))
	if len(specs) == 0 {
		t.Errorf("no spec ran: does FOCUS match one? See %s", log)
	}
}

// command is the suite's command line.
func command(t *testing.T, c *cluster.Cluster, report string) []string {
	args := []string{
		program(t, ginkgo), "--no-color", "-v", "--timeout=3h",
		"--procs=" + cmp.Or(os.Getenv("PROCS"), "1"), "--focus=" + cmp.Or(os.Getenv("FOCUS"), defaultFocus),
		"--output-dir=" + report, "--junit-report=junit.xml",
	}
	if skip := os.Getenv("SKIP"); skip != "" {
		args = append(args, "--skip="+skip)
	}
	return append(args, program(t, suite), "--",
		"--provider=skeleton", "--kubeconfig="+c.Kubeconfig(), "--kubectl-path="+program(t, kubectl), "--repo-root=",
		"--num-nodes=-1", "--node-os-distro=custom", "--report-dir="+report)
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func program(t *testing.T, path string) string {
	t.Helper()
	path = absolute(t, path)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v; `make conformance` makes it", err)
	}
	return path
}
