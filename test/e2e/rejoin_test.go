//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/everynode/everynode/test/e2e/cluster"
)

// A machine whose Node was deleted while it was off is a node again when it boots, under its name. Its
// pods of then are gone, from the machine too, and DaemonSets' come anew, one each.
func TestDeletedWhileOff(t *testing.T) {
	c := cluster.New(t, programs(t))
	off, other := c.AddNode(), c.AddNode()
	c.AwaitReady()
	for _, app := range []string{"web", "log"} {
		c.Apply(daemonSet(app, "sleep"))
	}
	c.Apply(onNode(off.Name, "bare", "", "sleep"))
	awaitPod(t, c, "bare", time.Minute, ready)
	web, log := awaitOnEach(t, c, "web", time.Minute), awaitOnEach(t, c, "log", time.Minute)

	off.Crash()
	c.MustKubectl("delete", "node", off.Name)
	cluster.Await(t, "the pods of the deleted node are gone", 3*time.Minute, func(ctx context.Context) error {
		left, err := podsOn(ctx, c, off.Name)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("there are %v", left)
		}
		return err
	})
	off.Reboot(c.JoinToken())
	c.AwaitReady(off)
	webNow, logNow := awaitOnEach(t, c, "web", time.Minute), awaitOnEach(t, c, "log", time.Minute)
	if webNow[off.Name].UID == web[off.Name].UID || logNow[off.Name].UID == log[off.Name].UID {
		t.Error("pods of the deleted node are still there")
	}
	if _, err := c.Client().CoreV1().Pods("default").Get(t.Context(), "bare", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the bare pod: %v", err)
	}
	sandboxes(t, c, off)
	cluster.Await(t, "nothing of the old pods is left on the machine", time.Minute, func(ctx context.Context) error {
		all, containers, err := off.Inventory(ctx)
		if err != nil {
			return err
		}
		folders, err := os.ReadDir(off.Path(cluster.DataDir + "/pods"))
		if err == nil && (len(all) != 2 || len(containers) != 2 || len(folders) != 2) {
			err = fmt.Errorf("%d sandboxes, %d containers, folders %v; want two each", len(all), len(containers), folders)
		}
		return err
	})
	delete(web, off.Name)
	delete(log, off.Name)
	unharmed(t, c, "web", web)
	unharmed(t, c, "log", log)
	sandboxes(t, c, other)
}
