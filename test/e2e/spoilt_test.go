//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/everynode/everynode/internal/cli/layout"
	"github.com/everynode/everynode/test/e2e/cluster"
)

// An agent that finds its own files empty or full of garbage says so, and goes on: nothing that runs is
// touched, and it is as able as before. Only its key is what nobody else can give it back.
func TestSpoiltFiles(t *testing.T) {
	c := cluster.New(t, programs(t))
	n := c.AddNode("--pod-manifest-path", manifestFolder)
	c.AwaitReady()
	place(t, n, "web.yaml", manifestOf("web", 8080))
	c.MustKubectl("create", "configmap", "settings", "--from-literal=k=plain")
	c.MustKubectl("create", "secret", "generic", "password", "--from-literal=k=hunter2")
	c.Apply(strings.Replace(daemonWithObjects("stays"), `"sleep"], volumeMounts`, `"sleep"], resources: {requests: {cpu: 10m}}, volumeMounts`, 1))
	uids := []string{mirror(t, c, "web-"+n.Name, nil).Annotations["kubernetes.io/config.hash"], string(awaitOnEach(t, c, "stays", 60*time.Second)[n.Name].UID)}
	c.MustKubectl("patch", "pod", awaitOnEach(t, c, "stays", 60*time.Second)[n.Name].Name, "--subresource", "resize",
		"--patch", `{"spec":{"containers":[{"name":"app","resources":{"requests":{"cpu":"11m"}}}]}}`)
	containers := map[string]string{}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	for _, uid := range uids {
		var err error
		if _, containers[uid], err = n.Exec(ctx, uid, "/bin/testapp", "hostname"); err != nil {
			t.Fatal(err)
		}
	}
	for how, content := range map[string]string{"empty": "", "garbage": "\x00\xff{garbage\n"} {
		n.Agent.Kill()
		files := spoil(t, n.Path(cluster.DataDir), content)
		t.Logf("%s: %s", how, strings.Join(files, ", "))
		if len(files) < 6 {
			t.Errorf("%s: only %v were found", how, files)
		}
		n.StartAgent(c.JoinToken())
		cluster.Await(t, "the agent writes what it needs anew", time.Minute, func(context.Context) error {
			for _, file := range files {
				needed := strings.HasPrefix(file, "agent/") && filepath.Base(file) != "join.key" || strings.HasPrefix(file, "images/")
				if text, err := os.ReadFile(filepath.Join(n.Path(cluster.DataDir), file)); needed && err == nil && string(text) == content {
					return fmt.Errorf("%s is as it was", file)
				}
			}
			return nil
		})
		c.AwaitReady()
		mirror(t, c, "web-"+n.Name, nil)
		awaitOnEach(t, c, "stays", 60*time.Second)
		for _, uid := range uids {
			if _, id, err := n.Exec(ctx, uid, "/bin/testapp", "hostname"); err != nil || id != containers[uid] {
				t.Errorf("%s: the container of %s was %s and is %s (%v)", how, uid, containers[uid], id, err)
			}
		}
		if out := c.MustKubectl("logs", "web-"+n.Name); !strings.Contains(out, "listening") {
			t.Errorf("%s: logs: %s", how, out)
		}
	}
}

// spoil gives the agent's files, but the key that it has joined with, another content.
func spoil(t *testing.T, dir, content string) (files []string) {
	t.Helper()
	l := layout.Layout{DataDir: dir}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(dir, path)
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "volumes" || d.Name() == "containerd" || path == filepath.Dir(l.CNIConf()) || path == manifestsIn(dir)):
			return fs.SkipDir // the pods' own, and other programs'
		case !d.Type().IsRegular(), strings.HasSuffix(name, ".tar"), d.Name() == "client.pem", d.Name() == "join-token", d.Name() == "lock", d.Name() == "containerd-config.toml":
			return nil
		}
		files = append(files, name)
		return os.WriteFile(path, []byte(content), 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func manifestsIn(dir string) string { return filepath.Join(dir, filepath.Base(manifestFolder)) }
