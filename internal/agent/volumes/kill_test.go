package volumes

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// crowded has a volume of every kind that is made.
const crowded = `
securityContext: {fsGroup: 4321}
volumes:
- {name: disk, emptyDir: {}}
- {name: memory, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
- {name: settings, configMap: {name: settings}}
- {name: keys, secret: {secretName: keys}}
- {name: all, projected: {sources: [{configMap: {name: settings}}, {serviceAccountToken: {path: token, expirationSeconds: 3600}}]}}
containers:
- name: c
  volumeMounts:
  - {name: disk, mountPath: /disk, subPath: a/b}
  - {name: memory, mountPath: /memory}
  - {name: settings, mountPath: /conf/file, subPath: key}
  - {name: keys, mountPath: /keys}
  - {name: all, mountPath: /all}
`

// churn sets pods up and tears them down until it is killed.
func churn(root string) error {
	fake := newFakeObjects()
	m := New(Options{Root: root, Objects: fake})
	for i := 0; ; i++ {
		fake.configMaps["settings"] = map[string]string{"key": fmt.Sprint(i)}
		fake.secrets["keys"] = map[string]string{"password": "hush"}
		if err := onePod(m, i); err != nil {
			return err
		}
	}
}

func onePod(m *Manager, i int) error {
	ctx := context.Background()
	pod := podOf(quiet{}, "u1", crowded)
	vols, err := m.Setup(ctx, pod, Facts{})
	if err != nil {
		return err
	}
	if _, _, err := m.Mounts(pod, &pod.Spec.Containers[0], vols, nil); err != nil {
		return err
	}
	if i%3 == 2 {
		return m.Teardown(ctx, pod.UID)
	}
	return nil
}

// quiet lets podOf be used without a test.
type quiet struct{ testing.TB }

func (quiet) Helper() {}

func TestMain(m *testing.M) {
	if root := os.Getenv("CHURN_ROOT"); root != "" {
		fmt.Println(churn(root))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// Killed at any moment, a restart finishes what was begun.
func TestKillAtAnyMoment(t *testing.T) {
	w := newWorld(t)
	w.objects.configMaps["settings"] = map[string]string{"key": "final"}
	w.objects.secrets["keys"] = map[string]string{"password": "hush"}
	for round := range 40 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), "CHURN_ROOT="+w.root)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20*time.Millisecond + rand.N(30*time.Millisecond))
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		said := make([]byte, 1000)
		if n, _ := out.Read(said); n > 0 {
			t.Fatalf("the child failed by itself: %s", said[:n])
		}
		_ = child.Wait() // it was killed

		w.Manager = New(w.o)
		if round%4 == 3 {
			w.Orphans(func(uid types.UID) bool { return false })
		}
		pod := podOf(t, "u1", crowded)
		vols := w.setup(pod)
		mounts, _, err := w.Mounts(pod, &pod.Spec.Containers[0], vols, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, mounts[2].HostPath); got != "final" {
			t.Fatalf("round %d: the sub path holds %q", round, got)
		}
		for _, path := range []string{"settings/key", "all/key", "all/token", "keys/password"} {
			volume, file := filepath.Split(path)
			if s := stat(t, filepath.Join(vols[filepath.Clean(volume)].Path, file)); s.Gid != 4321 {
				t.Fatalf("round %d: %s belongs to group %d", round, path, s.Gid)
			}
		}
		for _, name := range []string{"disk", "memory"} {
			if s := stat(t, vols[name].Path); s.Gid != 4321 || s.Mode&0o2777 != 0o2777 {
				t.Fatalf("round %d: %s has mode %o of group %d", round, name, s.Mode&0o7777, s.Gid)
			}
		}
		if n := len(mountsUnder(t, w.root)); n != 5 { // three tmpfs, two sub paths
			t.Fatalf("round %d: %d mounts: %v", round, n, mountsUnder(t, w.root))
		}
		if round%2 == 1 {
			w.teardown("u1")
		}
	}
}
