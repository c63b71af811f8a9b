//go:build e2e

package e2e

import (
	"os"
	"testing"
	"time"

	"github.com/everynode/everynode/internal/agent/cri/conformance"
	"github.com/everynode/everynode/internal/cli/teardown"
	"github.com/everynode/everynode/test/e2e/cluster"
)

// The real runtime keeps the rules that the fake one of the unit tests keeps.
func TestRuntimeConformance(t *testing.T) {
	c := cluster.New(t, programs(t))
	n := c.AddNode()
	c.AwaitReady()
	c.Apply(daemonSet("one", "sleep")) // when it runs, the image is there
	awaitOnEach(t, c, "one", time.Minute)
	n.Agent.Kill() // it would remove what the API does not know
	runtime, err := n.Runtime(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = runtime.Close(t.Context()) }()
	const logs = "/var/log/conformance"
	if err := os.MkdirAll(n.Path(logs), 0o755); err != nil {
		t.Fatal(err)
	}
	app := func(args ...string) []string { return append([]string{"/bin/testapp"}, args...) }
	conformance.Test(t, conformance.Subject{
		Runtime: runtime, Image: appImage, Run: app("sleep"), Deaf: app("deaf"), Exit3: app("exit", "3"),
		CgroupParent: "/" + teardown.CgroupParent(n.Name) + "/conformance", LogDir: logs,
	})
}
